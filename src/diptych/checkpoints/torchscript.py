"""Tensors out of a TorchScript archive (a file of `torch.jit.save`), without running what is in it.

`torch.jit.load` compiles and may run the code inside the file. An archive is a zip whose `data.pkl` describes a tree of
modules; this reader walks that description with an unpickler that knows seven harmless names and refuses all others.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.core.errors import CheckpointError

_DESCRIPTION_LIMIT = 64 << 20
"""Bytes of `data.pkl` at most: it names tensors and holds none (the largest CLIP's has 300 kB)."""

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive (it holds code and constants) rather than a plain `torch.save`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript archive by its dotted name, on the CPU in the type it was stored in.

    Raises CheckpointError where the archive is damaged or names anything but modules and tensors.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        try:
            description = _member(archive, f"{root}/data.pkl", _DESCRIPTION_LIMIT)
            tree = _ModuleUnpickler(io.BytesIO(description), archive, root).load()
            return dict(_walk(tree, "", 0))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise CheckpointError(
                f"{path} must be a whole TorchScript archive; got {type(error).__name__}: {error}. Fetch it again."
            ) from None


class _Node:
    """Stands for a module of the archive, whatever its class: attributes and no behaviour."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise CheckpointError(f"a module's state must be a dictionary; got {type(state).__name__}.")
        self.__dict__.update(state)


class _ModuleUnpickler(pickle.Unpickler):
    """An unpickler that can only make modules without behaviour, lists, and tensors over the archive's own bytes."""

    def __init__(self, stream: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Node
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Call(_rebuild)
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if (module, name) == ("torch", "device"):
            return _Call(lambda *_: None)
        if module == "torch.jit._pickle" and name in _LIST_NAMES:
            return _Call(lambda value, *_: value)
        raise CheckpointError(
            f"a TorchScript archive must hold modules and tensors only; got a call of {module}.{name}, which was not "
            "run. If you trust whoever made the file, load it with torch yourself and save its state_dict."
        )

    def persistent_load(self, key: Any) -> Tensor:
        kind, storage, name, _, count = key
        if kind != "storage" or not isinstance(storage, _Storage):
            raise CheckpointError(f"a tensor must lie in a storage; got {kind!r}.")
        if name not in self.storages:
            size = int(count) * storage.dtype.itemsize
            raw = _member(self.archive, f"{self.root}/data/{name}", size)
            if len(raw) != size:
                raise CheckpointError(f"storage {name} must have {size} bytes; got {len(raw)}. The file is damaged.")
            flat = (
                torch.frombuffer(bytearray(raw), dtype=storage.dtype) if size else torch.empty(0, dtype=storage.dtype)
            )
            self.storages[name] = flat
        return self.storages[name]


class _Storage:
    """The type of the numbers of a storage. Callable only because a pickle's globals may be called; it refuses."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Call:
    """A function that a pickle may call and may not alter."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError("a function of a TorchScript archive must be left as it is; the file sets its state.")


def _rebuild(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():  # a stride of 0 would make terabytes out of one number
        raise CheckpointError(f"a tensor must lie in its storage of {storage.numel()}; got size {tuple(size)}.")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)  # refuses to leave the storage


_LIST_NAMES = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise CheckpointError(f"the archive must hold {name}; it does not. The file is damaged.") from None
    if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(
            f"{name} must be stored as it is, in at most {limit} bytes; got {info.file_size}. The file is not torch's."
        )
    return archive.read(info)


def _walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > 64:
        raise CheckpointError("modules must nest at most 64 deep; the archive's tree goes deeper. The file is damaged.")
    if isinstance(node, Tensor):
        yield prefix, node
    elif isinstance(node, _Node):
        for name, child in vars(node).items():
            yield from _walk(child, f"{prefix}.{name}" if prefix else str(name), depth + 1)
