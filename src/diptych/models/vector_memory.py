"""Vectors of images and texts that were embedded once, by what was embedded: no eval computes them again.

One memory belongs to one model (its fingerprint). A key is a hash of a text, or of an image's bytes and of what was
done to it. On disk a memory is a folder of .npz files that nobody overwrites: any number of processes may add to it.
"""

import hashlib
import os
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

    Rows are kept in float32, as embedding returned them, so that a number does not depend on what was remembered.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.computed: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self._place: dict[What, dict[bytes, tuple[int, int]]] = {"image": {}, "text": {}}
        self._blocks: dict[What, list[Tensor]] = {"image": [], "text": []}
        self._new: dict[What, list[tuple[list[bytes], Tensor]]] = {"image": [], "text": []}
        self._files: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have saved since."""
        for path in sorted(self.folder.glob("*.npz")) if self.folder is not None else ():
            if path.name in self._files:
                continue
            self._files.add(path.name)
            what: What = "image" if path.name.startswith("image") else "text"
            try:
                with np.load(path, allow_pickle=False) as held:
                    keys, vectors = held["keys"], held["vectors"]
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise DataError(
                    f"{path} must hold keys and vectors; got {error}. Delete it: it is made anew."
                ) from None
            self._hold(what, [k.tobytes() for k in keys], torch.from_numpy(vectors))

    def missing(self, what: What, keys: Sequence[bytes]) -> list[int]:
        """The places of those keys that are not known, the first of equal ones only."""
        known, seen, places = self._place[what], set[bytes](), []
        for i, key in enumerate(keys):
            if key not in known and key not in seen:
                seen.add(key)
                places.append(i)
        return places

    def add(self, what: What, keys: Sequence[bytes], vectors: Float[Tensor, "n e"]) -> None:
        """Remember vectors that were computed now."""
        if len(keys):
            rows = vectors.detach().float().cpu()
            self._hold(what, list(keys), rows)
            self._new[what].append((list(keys), rows))
            self.computed[what] += len(keys)

    def get(self, what: What, keys: Sequence[bytes]) -> Float[Tensor, "n e"]:
        """The vectors of keys, all of which are known."""
        places, blocks = self._place[what], self._blocks[what]
        block, row = np.array([places[k] for k in keys]).reshape(-1, 2).T
        out = torch.empty(len(keys), blocks[0].shape[1])
        for b in np.unique(block).tolist():
            mine = np.flatnonzero(block == b)
            out[mine] = blocks[b][row[mine]]
        self.found[what] += len(keys)
        return out

    def save(self) -> None:
        """Write what was added since the last time, whole or not at all."""
        for what, parts in self._new.items():
            if not parts or self.folder is None:
                continue
            keys = np.frombuffer(b"".join(k for some, _ in parts for k in some), np.uint8).reshape(-1, 16)
            name = f"{what}-{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.npz"
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{name}.{os.getpid()}.part"
            with part.open("wb") as file:
                np.savez(file, keys=keys, vectors=torch.cat([v for _, v in parts]).numpy())
            part.replace(self.folder / name)
            self._files.add(name)
            parts.clear()

    def _hold(self, what: What, keys: list[bytes], rows: Tensor) -> None:
        block = len(self._blocks[what])
        self._blocks[what].append(rows)
        for i, key in enumerate(keys):
            self._place[what].setdefault(key, (block, i))
