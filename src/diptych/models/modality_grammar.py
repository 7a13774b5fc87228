"""What may follow what where words and images are one sequence: an image is its begin, so many codes, its end."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True)
class ModalityGrammar:
    """Follows rows of tokens by one number each: 0 among words, i + 1 where an image has begun and i codes of it stand.

    codes  the ids of codes
    marks  those of an image's begin and end
    cells  codes of an image
    size   of the whole vocabulary
    """

    codes: Int64[Tensor, " k"]
    marks: Int64[Tensor, " 2"]
    cells: int
    size: int

    def allowed(self, inside: Int64[Tensor, " b"], may_begin: Bool[Tensor, " b"]) -> Bool[Tensor, "b v"]:
        """Which tokens may come next. Among words those, and an image's begin where one `may_begin`; inside an image
        codes until it is full, then its end."""
        is_code = torch.zeros(self.size, dtype=torch.bool, device=inside.device).index_fill(0, self.codes, True)
        is_word = ~is_code.index_fill(0, self.marks, True)
        found = torch.where((inside == 0)[:, None], is_word, is_code)
        full = inside == self.cells + 1
        found = found & ~full[:, None]
        found[:, self.marks[0]] = (inside == 0) & may_begin
        found[:, self.marks[1]] = full
        return found

    def after(self, inside: Int64[Tensor, " b"], token: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """The number behind one more token, which was allowed."""
        begins, ends = token == self.marks[0], token == self.marks[1]
        return torch.where(begins, 1, torch.where(ends | (inside == 0), 0, inside + 1))
