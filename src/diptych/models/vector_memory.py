"""Vectors of images and texts that were embedded once, by what was embedded: no eval computes them again.

One memory belongs to one model (its fingerprint). A key is a hash of a text, or of an image's bytes and of what was
done to it. On disk a memory is a folder of .npz files that nobody overwrites: any number of processes may add to it.
"""

import hashlib
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import DataError

What = Literal["image", "text"]


def text_key(text: str) -> bytes:
    """The key of a text: 16 bytes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def image_key(digest: bytes, variant: str = "") -> bytes:
    """The key of an image: of its bytes' digest (`ImageReader`), and of the name of what was done to it."""
    return hashlib.blake2b(digest + variant.encode(), digest_size=16).digest() if variant else digest


class VectorMemory:
    """Vectors by key; `folder` None: in memory only. `computed` counts what was added, `found` what was asked for.

    Rows are kept in float32, as embedding returned them, so that a number does not depend on what was remembered. Those
    of files are mapped, not read: what is saved takes no memory until it is asked for.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.computed: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self._shelves: dict[What, _Shelf] = {"image": _Shelf(), "text": _Shelf()}
        self._files: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Find what other processes have saved since."""
        for path in sorted(self.folder.glob("*.npz")) if self.folder is not None else ():
            if path.name not in self._files:
                self._open(path)

    def missing(self, what: What, keys: Sequence[bytes]) -> list[int]:
        """The places of those keys that are not known, the first of equal ones only."""
        known, seen, places = self._shelves[what].row, set[bytes](), []
        for i, key in enumerate(keys):
            if key not in known and key not in seen:
                seen.add(key)
                places.append(i)
        return places

    def add(self, what: What, keys: Sequence[bytes], vectors: Float[Tensor, "n e"]) -> None:
        """Remember vectors that were computed now."""
        if len(keys):
            self._shelves[what].add(list(keys), vectors.detach().float().cpu())
            self.computed[what] += len(keys)

    def get(self, what: What, keys: Sequence[bytes]) -> Float[Tensor, "n e"]:
        """The vectors of keys, all of which are known. Not to be changed in place: where they lie in that order
        already, they are the memory's own, since a table may be too large to be held twice."""
        self.found[what] += len(keys)
        return self._shelves[what].get(keys)

    def save(self) -> None:
        """Write what was added since the last time, whole or not at all, and let go of it."""
        for what, shelf in self._shelves.items():
            if not shelf.new_keys or self.folder is None:
                continue
            keys = np.frombuffer(b"".join(shelf.new_keys), np.uint8).reshape(-1, 16)
            name = f"{what}-{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.npz"
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{name}.{os.getpid()}.part"
            with part.open("wb") as file:
                np.savez(file, keys=keys, vectors=shelf.new().numpy())
            part.replace(self.folder / name)
            shelf.forget_new()
            self._open(self.folder / name)

    def _open(self, path: Path) -> None:
        self._files.add(path.name)
        try:
            with np.load(path, allow_pickle=False) as held:
                keys = held["keys"]
            vectors = _mapped(path, "vectors.npy")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error) as error:
            raise DataError(f"{path} must hold keys and vectors; got {error}. Delete it: it is made anew.") from None
        what: What = "image" if path.name.startswith("image") else "text"
        self._shelves[what].hold([k.tobytes() for k in keys], vectors)


class _Shelf:
    """The vectors of one kind: files' rows, numbered through (0, 1, ...), and new ones (-1, -2, ...)."""

    def __init__(self) -> None:
        self.row: dict[bytes, int] = {}
        self.new_keys: list[bytes] = []
        self._new: list[Tensor] = []
        self._blocks: list[Tensor] = []
        self._starts = [0]

    def hold(self, keys: list[bytes], rows: Tensor) -> None:
        """A file's rows."""
        start = self._starts[-1]
        self._blocks.append(rows)
        self._starts.append(start + len(rows))
        for i, key in enumerate(keys):
            self.row.setdefault(key, start + i)

    def add(self, keys: list[bytes], rows: Float[Tensor, "n e"]) -> None:
        """New ones."""
        for i, key in enumerate(keys, len(self.new_keys)):
            self.row.setdefault(key, ~i)
        self.new_keys += keys
        self._new.append(rows)

    def new(self) -> Float[Tensor, "n e"]:
        """All new ones, from now on in one piece."""
        if len(self._new) > 1:
            self._new = [torch.cat(self._new)]
        return self._new[0]

    def forget_new(self) -> None:
        """Because they are in a file now."""
        for i, key in enumerate(self.new_keys):
            if self.row[key] == ~i:
                del self.row[key]
        self.new_keys, self._new = [], []

    def get(self, keys: Sequence[bytes]) -> Float[Tensor, "n e"]:
        """The rows of keys."""
        rows = np.fromiter((self.row[k] for k in keys), np.int64, len(keys))
        sources = [*self._blocks, *([self.new()] if self._new else [])]
        source = np.where(rows < 0, len(self._blocks), np.searchsorted(self._starts, rows, "right") - 1)
        rows = np.where(rows < 0, ~rows, rows - np.array([*self._starts[:-1], 0])[source])
        if len(rows) and (source == source[0]).all() and (np.diff(rows) == 1).all():
            return sources[source[0]][rows[0] : rows[0] + len(rows)]
        out = torch.empty(len(keys), sources[0].shape[1] if sources else 0)
        for s in np.unique(source).tolist():
            mine = np.flatnonzero(source == s)
            out[mine] = sources[s][rows[mine]]
        return out


def _mapped(path: Path, member: str) -> Tensor:
    """An array of an .npz, whose members lie uncompressed in the file, as a tensor over a private map of it."""
    with path.open("rb") as file:
        with zipfile.ZipFile(file) as held:
            start = held.getinfo(member).header_offset
        file.seek(start)
        name, extra = struct.unpack("<HH", file.read(30)[26:30])  # their lengths end a local header
        file.seek(start + 30 + name + extra)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        offset = file.tell()
    if not np.prod(shape):
        return torch.empty(shape)
    return torch.from_numpy(np.memmap(path, dtype, "c", offset, shape))
