"""Random matrices of pairs, and a watch over how much memory an operation asks for."""

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diptych.objectives.same_pairs import SamePairs
from diptych.objectives.tiles import Pairs, TileSize
from tests.reference.dense_contrastive import same_pairs


class Case(NamedTuple):
    """Vectors of n pairs, their ids, and tiles that rarely divide the matrix."""

    image: Tensor
    text: Tensor
    ids: list[Tensor]
    scale: float
    size: TileSize

    def pairs(self, bias: float | None = None) -> Pairs:
        """What the tiled losses are given."""
        same = SamePairs(self.ids, 0)
        bias_tensor = None if bias is None else self.image.new_tensor(bias)
        n = len(self.image)
        return Pairs(self.image, self.text, self.image.new_tensor(self.scale), bias_tensor, same, 0, n, self.size)

    def same(self) -> Tensor:
        """The duplicates as a matrix."""
        return same_pairs(*self.ids)

    def leaves(self, *numbers: float) -> list[Tensor]:
        """image, text and numbers in float64, as leaves."""
        given = [self.image, self.text, *(torch.tensor(float(x)) for x in numbers)]
        return [x.to(torch.float64, copy=True).requires_grad_() for x in given]


@st.composite
def cases(draw: Any) -> Case:
    n, e = draw(st.integers(1, 23)), draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    image, text = torch.randn(2, n, e)
    length = draw(st.sampled_from([0.0, 1.0, 3.0]))  # 0: as they come
    if length:
        image, text = (length * torch.nn.functional.normalize(x, dim=1) for x in (image, text))
    if draw(st.booleans()):
        text = -image  # every own logit is the smallest of its row
    kinds = draw(st.sampled_from([1, 3, 2**62]))
    ids = [torch.randint(-kinds, kinds, (n,)) for _ in range(draw(st.integers(1, 2)))]
    size = TileSize(draw(st.integers(1, 25)), draw(st.integers(1, 25)), draw(st.sampled_from([0, 40, 10**6])))
    return Case(image, text, ids, draw(st.sampled_from([1.0, 14.3, 100.0])), size)


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements that any operation's result has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.numel())
        return out
