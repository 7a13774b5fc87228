"""How much memory a computation holds at its worst moment, counted tensor by tensor; on the meta device it is free."""

import weakref
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While open, `now` is the bytes of all tensors made inside that still live, and `peak` the most there ever were.

    Counts every operator's outputs, in the backward pass too; not what a kernel takes and gives back inside. What was
    there before (`known`: weights, inputs) is not counted, nor what has one of the shapes `ignore` (a weight's gradient
    before it is added up: it does not grow with the batch). One thread: not for CUDA, which counts itself.
    """

    def __init__(self, known: Iterable[Tensor] = (), ignore: Collection[tuple[int, ...]] = ()) -> None:
        super().__init__()
        self._ignore = frozenset(ignore)
        self.now = self.peak = 0
        self._live: dict[int, int] = {}
        self._known = {t.untyped_storage()._cdata: t for t in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or key in self._known or tuple(tensor.shape) in self._ignore:
            return
        self._live[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key).atexit = False

    def _free(self, key: int) -> None:
        self.now -= self._live.pop(key, 0)


def tensors_of(*values: Any) -> list[Tensor]:
    """All tensors inside modules, batches, containers: what is there before a computation begins."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, torch.nn.Module):
            found += [*value.parameters(), *value.buffers()]
        else:
            found += [x for x in tree_leaves(value) if isinstance(x, Tensor)]
    return found
