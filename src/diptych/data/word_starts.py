"""Which tokens begin a word: told by how a vocabulary spells its tokens."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from diptych.data.tokenize import Tokenizer


class WordStarts:
    """Knows for each id whether it begins a word, or (CLIP's "</w>") whether it ends one.

    Byte-level and SentencePiece vocabularies mark the space before a word, WordPiece the pieces that go on with one.
    Where none of these marks is found, every token is a word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = tokenizer.pieces()
        self._ends = any(p.endswith("</w>") for p in pieces)
        if self._ends:
            marked = [p.endswith("</w>") for p in pieces]
        elif any(p.startswith("##") for p in pieces):
            marked = [not p.startswith("##") for p in pieces]
        else:
            marked = [p.startswith(("\u0120", "\u2581", " ")) for p in pieces]
            marked = marked if any(marked) else [True] * len(pieces)
        specials = {i for i in (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id) if i is not None}
        self._marked = torch.tensor([m or i in specials for i, m in enumerate(marked)])

    def __call__(self, tokens: Int64[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """Which tokens of padded rows begin a word; the first of a row does."""
        marked = self._marked[tokens]
        if not self._ends:
            marked[:, :1] = True
            return marked
        return torch.cat([torch.ones_like(marked[:, :1]), marked[:, :-1]], dim=1)
