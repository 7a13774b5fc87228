"""Models that fill in, whose errors are known: small beside the right other side, or as a hash of both says."""

from typing import Any

import torch
from torch import Tensor

from diptych.core.seeds import fold
from diptych.data.tokenize import TokenizerConfig
from diptych.models.pretrained import Pretrained
from tests.evals.fake_writer import WordTokenizer
from tests.evals.fakes import Mute

GRID = (2, 2)


class NumberTokenizer(WordTokenizer):
    """A token a word between start and end; a word that is a number is that number + 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TokenizerConfig(context_length=32, start_id=2, end_id=1)

    def bare(self, texts: Any) -> list[list[int]]:
        return [[1000 + int(w) if w.isdigit() else len(w) + 3 for w in t.split()] for t in texts]

    def decode(self, ids: Any) -> str:
        return " ".join(str(i - 1000) if i >= 1000 else "word" for i in map(int, ids) if i > 2)


class Fills(Mute):
    """`perfect`: small errors beside its own other side, large ones beside another's, middling ones beside none; else
    errors that nothing can be told from."""

    fill_unit = "parts of a colour"

    def fill_grid(self) -> tuple[int, int]:
        return GRID

    def fill_image(self, images: Tensor, masked: Tensor, tokens: Any, lengths: Any) -> Tensor:
        own = self._numbers(images)
        other = [None] * len(own) if tokens is None else [int(row[row >= 1000][0]) - 1000 for row in tokens]
        return torch.where(masked, self._errors(own, other, "image")[:, None], 0.0)

    def fill_text(self, tokens: Tensor, lengths: Tensor, masked: Tensor, images: Any) -> Tensor:
        own = [int(row[row >= 1000][0]) - 1000 for row in tokens]
        other = [None] * len(own) if images is None else self._numbers(images)
        return torch.where(masked, self._errors(own, other, "text")[:, None], 0.0)

    def _numbers(self, images: Tensor) -> list[int]:
        return (images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()).tolist()

    def _errors(self, own: list[int], other: list[Any], what: str) -> Tensor:
        if not self.perfect:
            return torch.tensor([fold(what, a, str(b)) % 1000 / 1000 for a, b in zip(own, other, strict=True)])
        found = [0.5 if b is None else 0.1 + a % 7 / 100 if a == b else 1.0 for a, b in zip(own, other, strict=True)]
        return torch.tensor(found)


class Rebuilds(Fills):
    """Shows what it rebuilt: all black."""

    def rebuild(self, images: Tensor, masked: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.zeros_like(images)


def model(kind: type[Fills] = Rebuilds, perfect: bool = True) -> Pretrained:
    """A loaded one."""
    return Pretrained(kind(perfect), NumberTokenizer(), fingerprint="f" * 8)
