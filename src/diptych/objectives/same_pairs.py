"""Which pairs of the global batch are duplicates of each other, answered tile by tile from their ids."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diptych.core.distributed import gather, rank, world_size
from diptych.core.errors import ConfigError


class SamePairs:
    """Two pairs are the same if they share their caption or their image. No matrix of all pairs is ever formed.

    `ids` are those of captions, images or both, each of all g pairs; this rank's b pairs start at number `first`.
    Nothing here waits for the device, except that on the CPU tiles without duplicates are found and skipped.
    """

    def __init__(self, ids: list[Int64[Tensor, " g"]], first: int) -> None:
        self.first = first
        self._labels = [_places(x) for x in ids]  # small numbers instead of 64-bit hashes, equal where the ids are
        self._counts = [_occurrences(x) for x in self._labels]
        # on the CPU what has no duplicate at all need not be compared; elsewhere, to know that would be to wait
        asked = [c.device.type != "cpu" or bool((c > 1).any()) for c in self._counts]
        self._kept = [
            (x.int(), c > 1) for x, c, needed in zip(self._labels, self._counts, asked, strict=True) if needed
        ]

    @classmethod
    def of_ranks(
        cls,
        captions: Int64[Tensor, " b"] | None,
        images: Int64[Tensor, " b"] | None,
        behind: tuple[Int64[Tensor, " q"], Int64[Tensor, " q"]] | None = None,
        duplicates: str = "mask",
    ) -> "SamePairs":
        """Of the pairs of all ranks, given the ids of this one's. A collective. `behind`: ids of captions and images
        that stand behind those of all ranks, as a queue's. Raises ConfigError without any ids, naming `duplicates`."""
        kept = behind or (None, None)
        found = [
            gather(mine) if theirs is None else torch.cat([gather(mine), theirs])
            for mine, theirs in zip((captions, images), kept, strict=True)
            if mine is not None
        ]
        if not found:
            raise ConfigError(
                f"objective.duplicates must be 'ignore' for batches without text_ids and image_ids; got "
                f"{duplicates!r}. Fill the ids (the loader does), or ignore duplicates."
            )
        every = len(found[0]) - (0 if behind is None else len(behind[0]))
        return cls(found, rank() * (every // world_size()))

    def counts(self) -> Float[Tensor, " g"]:
        """How many pairs each of the g pairs is the same as, itself counted."""
        total = torch.stack(self._counts).sum(0)
        if len(self._labels) == 2:  # those that share both were counted twice
            text, image = self._labels
            total = total - _occurrences(_places(text * len(text) + image))
        return total.float()

    def tile(self, rows: slice, columns: slice) -> Bool[Tensor, "r c"] | None:
        """Which of this rank's `rows` are the same as which of all `columns`, each pair itself excepted.

        None if surely no two of them are the same.
        """
        found: Tensor | None = None
        theirs = slice(self.first + rows.start, self.first + rows.stop)
        for labels, repeated in self._kept:
            a, b = labels[theirs], labels[columns]
            if a.device.type == "cpu" and not _touch(a[repeated[theirs]], b[repeated[columns]]):
                continue
            equal = a[:, None] == b
            found = equal if found is None else found.logical_or_(equal)
        if found is not None:
            found.diagonal(theirs.start - columns.start).fill_(False)
        return found

    def matrix(self, rows: int) -> Bool[Tensor, "b g"]:
        """Which of this rank's pairs are the same as which of all, each as itself: for losses that hold b g numbers."""
        own = torch.eye(rows, len(self._labels[0]), dtype=torch.bool, device=self._labels[0].device).roll(self.first, 1)
        others = self.others(rows)
        return own if others is None else own | others

    def others(self, rows: int) -> Bool[Tensor, "b g"] | None:
        """`matrix`, each pair itself excepted; None if surely no two are the same."""
        return self.tile(slice(0, rows), slice(0, len(self._labels[0])))


def duplicate_shares(
    captions: Int64[Tensor, " b"] | None, images: Int64[Tensor, " b"] | None, among: Bool[Tensor, " g"] | None = None
) -> dict[str, Float[Tensor, ""]]:
    """ "duplicate_captions" and "duplicate_images": the shares of all ranks' pairs (`among`: of some of them) whose
    caption, or image, is that of another, where this rank's ids are given. A collective."""
    found = {}
    for name, ids in (("duplicate_captions", captions), ("duplicate_images", images)):
        if ids is not None:
            every = gather(ids) if among is None else gather(ids)[among]
            found[name] = (SamePairs([every], 0).counts() > 1).float().mean()
    return found


def _places(ids: Int64[Tensor, " g"]) -> Int64[Tensor, " g"]:
    """The place of each id in their sorted order: equal ids have equal places, and all are below g."""
    return torch.searchsorted(ids.sort().values, ids)


def _occurrences(places: Int64[Tensor, " g"]) -> Int64[Tensor, " g"]:
    """How often each of them occurs, given that they are places in sorted order."""
    return torch.zeros_like(places).scatter_add_(0, places, torch.ones_like(places))[places]


def _touch(a: Tensor, b: Tensor) -> bool:
    return bool(len(a)) and bool(len(b)) and bool(torch.isin(a, b).any())
