"""Images that are one picture saved anew: re-encoded, resized, squeezed or somewhat brighter.

Perceptual hashes find candidates (`data/near_copies.py`; `data/hash_pairs.py` without comparing all with all), the
candidates' miniatures decide. A record goes if one before it in the pool is near it, also if that one goes itself: so
a chain a ~ b ~ c collapses to a, though a and c need not be near. Every pair thus stands on its own, and neither order
of work nor shards change the result. The rule of nearness is strict enough (grey levels, not concepts) that chains are
short.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8, UInt64
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import CandidatePool, Rows
from diptych.data.filters.filter import Filter, FilterConfig
from diptych.data.hash_pairs import pack_hashes, pairs_within
from diptych.data.near_copies import MINIATURE, Shades, compare_miniatures, may_be_near, shades, sketch_images
from diptych.data.verdicts import read_verdicts, starts_of, write_verdicts

WIDTH = 3 * MINIATURE**2
"""Bytes of a miniature."""

VERIFIED = 1 << 10
"""Candidates whose miniatures are compared at once: what is held of them stays in a core's own cache."""


class NearDuplicatesConfig(FilterConfig):
    """When two images are one picture.

    most_bits      in how many of the 64 bits of their hashes they may differ; the work grows steeply with it
    tolerance      how far their miniatures may be apart, as a share of the contrast (root mean square) of the one that
                   has less; the other is weakened to it first, by three tenths at most
    most_compared  in each table, with how many earlier images that share its blocks one is compared at most; 0: all.
                   It matters where thousands of images look nearly the same to the hash, such as plain icons
    """

    most_bits: int = Field(default=6, ge=0, le=16)
    tolerance: float = Field(default=0.1, gt=0, le=1)
    most_compared: int = Field(default=2000, ge=0)

    def build(self) -> "NearDuplicates":
        """The filter."""
        return NearDuplicates(self)


class Gathered(NamedTuple):
    """Of a shard: where those that were read are in it, their hashes and miniatures, and where broken ones are."""

    where: Int64[ndarray, " n"]
    hashes: UInt64[ndarray, " n"]
    miniatures: UInt8[ndarray, "n p"]
    broken: Int64[ndarray, " m"]


class NearDuplicates(Filter):
    """Reasons: near_duplicate, unreadable_image. Exact duplicates are near ones too; a record without an image stays.

    While it is settled, miniatures lie in a file, 768 bytes an image; some 300 bytes an image are held in memory at the
    most (measured at a million, the sorting of tables included).
    """

    gathers: ClassVar[bool] = True

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self.config = config
        self._folder: Path | None = None

    def gather(self, rows: Rows, alive: Bool[ndarray, " n"]) -> Gathered:
        """Hashes and miniatures of the images that are left."""
        places = np.flatnonzero(alive & (rows.widths > 0)).tolist()
        sketches, broken = sketch_images(rows.image, places)
        return Gathered(
            np.array(sketches.places, dtype=np.int64),
            pack_hashes(sketches.bits.numpy()),
            sketches.miniatures.numpy(),
            np.array(sorted(broken), dtype=np.int64),
        )

    def settle(self, gathered: Iterator[Gathered], pool: CandidatePool, folder: Path) -> None:
        """Which ones go."""
        codes = np.zeros(len(pool), dtype=np.uint8)
        places, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        file = folder / "miniatures.raw"
        with file.open("wb") as out:
            for start, found in zip(starts_of(pool), gathered, strict=True):
                places.append(found.where + start)
                hashes.append(found.hashes)
                out.write(np.ascontiguousarray(found.miniatures).data)
                codes[found.broken + start] = 2
        place, key = np.concatenate(places), np.concatenate(hashes)
        del places, hashes
        if len(place):
            miniatures = np.memmap(file, np.uint8, "r", shape=(len(place), WIDTH))
            codes[place[earlier_copy(key, miniatures, self.config) >= 0]] = 1
        file.unlink()
        write_verdicts(folder, pool, codes)
        self._folder = folder

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """As it was settled."""
        return list(np.array(["", "near_duplicate", "unreadable_image"])[read_verdicts(self._folder, rows)])


def earlier_copy(
    hashes: UInt64[ndarray, " n"], miniatures: UInt8[ndarray, "n p"], config: NearDuplicatesConfig
) -> Int64[ndarray, " n"]:
    """Of each image one before it that is near it, -1 where there is none. `miniatures` may be a file that is mapped.

    Images with equal hashes and miniatures are near the same others, so only the first of them is compared on.
    """
    miniatures = np.asarray(miniatures)  # rows of a mapped file are plain arrays then, which are made faster
    earlier = np.full(len(hashes), -1, dtype=np.int64)
    first = _first_of_equals(hashes, miniatures)
    again = first != np.arange(len(first))
    earlier[again] = first[again]
    rest = np.flatnonzero(~again)
    gone, known = np.zeros(len(rest), dtype=bool), _shades_of(miniatures, rest)
    del first, again
    for i, j in pairs_within(hashes[rest], config.most_bits, config.most_compared, gone):
        for start in range(0, len(i), VERIFIED):
            a, b = i[start : start + VERIFIED], j[start : start + VERIFIED]
            able = may_be_near(known.of(a), known.of(b), config.tolerance).numpy() & ~gone[b]
            a, b = a[able], b[able]
            if not len(a):
                continue
            x, y = torch.from_numpy(miniatures[rest[a]]), torch.from_numpy(miniatures[rest[b]])
            limit, apart = compare_miniatures(x, y, config.tolerance, known.of(a), known.of(b))
            near = (apart <= limit).numpy()
            earlier[rest[b[near]]] = rest[a[near]]
            gone[b[near]] = True
    return earlier


def _shades_of(miniatures: UInt8[ndarray, "n p"], rows: Int64[ndarray, " m"]) -> Shades:
    """Means and variances of those rows' miniatures, 48 bytes a row."""
    found = Shades(*(torch.empty(len(rows), 3, dtype=torch.float64) for _ in range(2)))
    for start in range(0, len(rows), VERIFIED):
        part = slice(start, start + VERIFIED)
        found.means[part], found.variances[part] = shades(torch.from_numpy(miniatures[rows[part]]))
    return found


def _first_of_equals(hashes: UInt64[ndarray, " n"], miniatures: UInt8[ndarray, "n p"]) -> Int64[ndarray, " n"]:
    """The row of the first image with the same hash and miniature: its own, where it is the first."""
    first = np.arange(len(hashes))
    by_hash = np.argsort(hashes, kind="stable")
    same = hashes[by_hash][1:] == hashes[by_hash][:-1]
    met = np.zeros(len(hashes), dtype=bool)
    met[by_hash[1:][same]] = met[by_hash[:-1][same]] = True
    rows = np.flatnonzero(met)  # the others share their hash with none
    digests = np.empty(len(rows), dtype=np.uint64)
    for place, row in enumerate(rows.tolist()):
        raw = hashes[row].tobytes() + miniatures[row].tobytes()
        digests[place] = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
    order = np.argsort(digests, kind="stable")
    new = np.ones(len(order), dtype=bool)
    new[1:] = digests[order][1:] != digests[order][:-1]
    first[rows[order]] = rows[order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]]
    return first
