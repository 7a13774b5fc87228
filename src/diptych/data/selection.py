"""Which records stay: a sorted list of uids, as DataComp writes it, so that curation never copies data.

The file is a ``.npy`` of dtype ``u8,u8``: the high and the low 64 bits of each uid, sorted. Selections of one pool
combine as sets.
"""

import hashlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from diptych.core.errors import ConfigError, DataError
from diptych.core.seeds import fold

PAIR = np.dtype("u8,u8")
Uids = UInt8[ndarray, "n 16"]


class Selection:
    """A set of uids."""

    def __init__(self, uids: Uids) -> None:
        self.pairs = np.unique(as_pairs(uids))

    @classmethod
    def of(cls, uids: Iterable[str]) -> "Selection":
        """Of uids as 32 hex digits."""
        raw = b"".join(bytes.fromhex(u) for u in uids)
        return cls(np.frombuffer(raw, np.uint8).reshape(-1, 16))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Selection":
        """The selection in a ``.npy``, or in a folder that `diptych curate` wrote. Never unpickles."""
        file = Path(path)
        file = file / "selection.npy" if file.is_dir() else file
        try:
            found = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"a selection must be a .npy file or a curated folder; {file} is not there.") from None
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{file} must be a numpy file of dtype u8,u8; got {error}.") from None
        if found.dtype != PAIR or found.ndim != 1:
            raise DataError(
                f"{file} must hold a list of dtype u8,u8 (high and low half of each uid); got {found.dtype} of shape "
                f"{found.shape}. DataComp's resharder and `diptych curate` write such files."
            )
        made = cls(np.zeros((0, 16), np.uint8))
        made.pairs = np.unique(found)
        return made

    def save(self, path: str | PathLike[str]) -> None:
        """Write the ``.npy``."""
        with Path(path).open("wb") as file:
            np.save(file, self.pairs, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and np.array_equal(self.pairs, other.pairs)

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: "Selection") -> "Selection":
        return self._made(np.intersect1d(self.pairs, other.pairs, assume_unique=True))

    def __or__(self, other: "Selection") -> "Selection":
        return self._made(np.union1d(self.pairs, other.pairs))

    def __sub__(self, other: "Selection") -> "Selection":
        return self._made(np.setdiff1d(self.pairs, other.pairs, assume_unique=True))

    def holds(self, uids: Uids) -> Bool[ndarray, " n"]:
        """Which of `uids` are in it."""
        wanted = as_pairs(uids)
        if not len(self.pairs):
            return np.zeros(len(wanted), dtype=bool)
        place = np.searchsorted(self.pairs, wanted).clip(max=len(self.pairs) - 1)
        return np.asarray(self.pairs[place] == wanted)

    def sample(self, count: int, seed: int = 0) -> "Selection":
        """`count` of its uids, those with the smallest hash of (seed, uid): whatever else a pool holds, the same ones
        stay, and a larger sample holds every smaller one."""
        if not 0 <= count <= len(self):
            raise ConfigError(f"a sample must be of 0 to {len(self):,} records; got {count:,}. Take fewer.")
        salt = fold(seed, "sample").to_bytes(8, "little")
        raw = uids_of(self.pairs)
        order = [hashlib.blake2b(u.tobytes(), digest_size=8, key=salt).digest() for u in raw]
        chosen = np.argsort(np.array([int.from_bytes(o, "big") for o in order], dtype=np.uint64), kind="stable")[:count]
        return self._made(np.sort(self.pairs[chosen]))

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash of the uids."""
        return hashlib.blake2b(self.pairs.tobytes(), digest_size=8).hexdigest()

    def _made(self, pairs: ndarray) -> "Selection":
        made = Selection(np.zeros((0, 16), np.uint8))
        made.pairs = pairs
        return made


def as_pairs(uids: Uids) -> ndarray:
    """Uids as (high, low) pairs, which sort as their hex digits do."""
    halves = np.ascontiguousarray(uids).view(">u8").astype("<u8").reshape(-1, 2)
    return np.ascontiguousarray(halves).view(PAIR).reshape(-1)


def uids_of(pairs: ndarray) -> Uids:
    """(high, low) pairs as uids."""
    halves = np.ascontiguousarray(pairs).view("<u8").reshape(-1, 2)
    return halves.astype(">u8").view(np.uint8).reshape(-1, 16)
