"""Records whose image, or whose image and captions, another record of the pool has too, byte for byte."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, UInt64
from numpy import ndarray

from diptych.data.candidates import CandidatePool, Rows
from diptych.data.filters.filter import Filter, FilterConfig
from diptych.data.verdicts import read_verdicts, starts_of, write_verdicts


class ExactDuplicatesConfig(FilterConfig):
    """What must be equal, and which of the equal ones stays.

    of     "image": the bytes of the first image; "pair": these and all captions
    score  the scores by which the best one stays (the earliest of equally good ones, one without a score last); empty:
           the first in the pool's order
    """

    of: Literal["image", "pair"] = "image"
    score: str = ""

    def build(self) -> "ExactDuplicates":
        """The filter."""
        return ExactDuplicates(self)


class ExactDuplicates(Filter):
    """Reasons: duplicate_image, duplicate_pair. A record without an image stays under "image"; under "pair" its
    captions alone count.

    Equal are 64-bit hashes: among a hundred million records one false pair is expected in 4,000 pools. About 40 bytes
    of memory a record while it is settled.
    """

    gathers: ClassVar[bool] = True

    def __init__(self, config: ExactDuplicatesConfig) -> None:
        self.config = config
        self._folder: Path | None = None

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Any:
        """Where in the shard those that can have duplicates are, their hashes, and their scores."""
        compared = alive if self.config.of == "pair" else alive & (rows.widths > 0)
        where = np.flatnonzero(compared).astype(np.int32)
        scores = rows.scores(self.config.score)[compared].astype(np.float32) if self.config.score else None
        return where, self._hashes(rows)[compared], scores

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """Which ones go."""
        places, hashes, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], [np.zeros(0, np.float32)]
        for start, (where, found, said) in zip(starts_of(pool), gathered, strict=True):
            places.append(where + np.int64(start))
            hashes.append(found)
            scores += [] if said is None else [said]
        place, key = np.concatenate(places), np.concatenate(hashes)
        by = [key]
        if self.config.score:
            score = np.concatenate(scores)
            by = [-np.where(np.isnan(score), -np.inf, score), key]
        order = np.lexsort(by)  # stable: earlier places first
        again = key[order][1:] == key[order][:-1]
        codes = np.zeros(len(pool), dtype=np.uint8)
        codes[place[order[1:][again]]] = 1
        write_verdicts(folder, pool, codes)
        self._folder = folder

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """As it was settled."""
        return list(np.where(read_verdicts(self._folder, rows) == 1, f"duplicate_{self.config.of}", ""))

    def _hashes(self, rows: Rows) -> UInt64[ndarray, " n"]:
        ids = rows.image_ids.view(np.uint64)
        if self.config.of == "image":
            return ids
        ids = np.where(rows.widths > 0, ids, np.uint64(0))
        found = np.empty(len(rows), dtype=np.uint64)
        for i, captions in enumerate(rows.captions):
            h = hashlib.blake2b(int(ids[i]).to_bytes(8, "little"), digest_size=8)
            for text in captions:
                raw = text.encode()
                h.update(len(raw).to_bytes(8, "little") + raw)
            found[i] = int.from_bytes(h.digest(), "little")
        return found
