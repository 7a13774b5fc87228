"""Records whose image is a test image too, so that what is tested has not been trained on.

Against packed datasets, or held-out splits of the pool's own: by the bytes, by the picture saved anew
(`data/near_copies.py`), and by vectors where these are given. Test sets are small beside the pool: their sketches lie
in a file, and each shard is compared with all of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool, Rows
from diptych.data.dataset import Dataset
from diptych.data.filters.filter import Filter, FilterConfig
from diptych.data.near_copies import Sketches, find_copies, nearest_vectors, read_sketches, sketch_images
from diptych.data.vectors import has_vector, read_vectors, unit_vectors


class DecontaminateConfig(FilterConfig):
    """What is tested on, and how near a copy is.

    against      packed datasets, "PATH" for all splits but train or "PATH:SPLIT" for one; empty: the splits of the
                 pool's own dataset that are not curated
    near         whether pictures saved anew count, which must be decoded; else equal bytes alone
    most_bits    in how many of the 64 bits of their hashes near copies may differ
    tolerance    how far their miniatures may be apart, as a share of the picture's contrast
    vectors      the name of vectors that the pool and the test sets have; empty: none are compared
    most_cosine  above it, two vectors are of one picture
    """

    against: tuple[str, ...] = ()
    near: bool = True
    most_bits: int = Field(default=12, ge=0, le=64)
    tolerance: float = Field(default=0.2, gt=0, le=1)
    vectors: str = ""
    most_cosine: float = Field(default=0.95, gt=0, le=1)

    def build(self) -> "Decontaminate":
        """The filter."""
        return Decontaminate(self)


class Decontaminate(Filter):
    """Reasons: exact_copy_of_NAME, near_copy_of_NAME, vector_copy_of_NAME; unreadable_image. NAME is the test set's
    folder and split. The first test set that has a copy is named, and the surest kind of copy.

    Of records with several images the first one is looked at, on both sides.
    """

    gathers: ClassVar[bool] = True

    def __init__(self, config: DecontaminateConfig) -> None:
        self.config = config
        self._tests: list[tuple[str, Path]] = []

    def settle(self, gathered: Iterator[Any], pool: CandidatePool, folder: Path) -> None:
        """Read the test sets; of the pool nothing is needed."""
        for _ in gathered:
            pass
        self._tests = []
        for number, (path, split) in enumerate(self._against(pool)):
            name = re.sub(r"[^a-z0-9]+", "_", f"{path.resolve().name} {split}".lower()).strip("_")
            file = folder / f"test_{number}.npz"
            _write_test(path, split, self.config, file)
            self._tests.append((name, file))

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """What a record's image is a copy of."""
        looked = alive & (rows.widths > 0)
        said = np.full(len(rows), "", dtype=object)
        sketches, broken = (
            sketch_images(rows.image, np.flatnonzero(looked).tolist()) if self.config.near else (None, {})
        )
        vectors = unit_vectors(read_vectors(rows.pool, self.config.vectors, rows)) if self.config.vectors else None
        for name, file in self._tests:
            test = np.load(file, allow_pickle=False)
            for how, found in self._copies(rows, sketches, vectors, test):
                said[found & looked & (said == "")] = f"{how}_copy_of_{name}"
        for i in broken:
            said[i] = said[i] or "unreadable_image"
        return list(said)

    def _copies(
        self, rows: Rows, sketches: Sketches | None, vectors: ndarray | None, test: Any
    ) -> Iterator[tuple[str, Bool[ndarray, " n"]]]:
        """By kind, which records are copies of an image of that test set."""
        yield "exact", np.isin(rows.image_ids, test["ids"])
        if sketches is not None and len(sketches.places) and len(test["bits"]):
            bits, miniatures = torch.from_numpy(test["bits"]), torch.from_numpy(test["miniatures"])
            theirs = Sketches(list(range(len(bits))), [b""] * len(bits), bits, miniatures)
            near = np.zeros(len(rows), dtype=bool)
            near[sketches.places] = find_copies(sketches, theirs, self.config.most_bits, self.config.tolerance).near
            yield "near", near
        if vectors is not None and len(test["vectors"]):
            has = has_vector(vectors)
            if has.any() and vectors.shape[1] != test["vectors"].shape[1]:
                raise ConfigError(
                    f"vectors called {self.config.vectors!r} must be one model's; got widths {vectors.shape[1]} and "
                    f"{test['vectors'].shape[1]}. Embed the pool and the test sets with the same model."
                )
            close = np.zeros(len(rows), dtype=bool)
            if has.any():
                cosine, _ = nearest_vectors(torch.from_numpy(vectors[has]), torch.from_numpy(test["vectors"]))
                close[has] = cosine > self.config.most_cosine
            yield "vector", close

    def _against(self, pool: CandidatePool) -> list[tuple[Path, str]]:
        """The test sets: dataset and split."""
        found: list[tuple[Path, str]] = []
        for given in self.config.against or (str(pool.path),):
            path, _, split = (given, "", "") if Path(given).is_dir() else given.rpartition(":")
            dataset = Dataset.open(path or given)
            used = pool.splits if dataset.path.resolve() == pool.path.resolve() else ("train",)
            splits = [split] if split else [s for s in dataset.splits if s not in used]
            if split and dataset.path.resolve() == pool.path.resolve() and split in pool.splits:
                raise ConfigError(f"a test split must not be curated itself; got {given!r}. Leave it out of splits.")
            if not splits:
                raise ConfigError(
                    f"DecontaminateConfig.against must name what is tested on; {dataset.path} has no split but "
                    f"{', '.join(used)}. Give PATH or PATH:SPLIT of the test sets."
                )
            found += [(dataset.path, dataset.split(s).name) for s in splits]
        return found


def _write_test(path: Path, split: str, config: DecontaminateConfig, file: Path) -> None:
    """What is compared of a test set: hashes of bytes, sketches, vectors."""
    pool = CandidatePool(path, (split,))
    held, has, vectors = pool.dataset.split(split), [], []
    for shard in pool.shards:
        rows = pool.rows(shard)
        has.append(rows.widths > 0)
        if config.vectors:
            found = read_vectors(pool, config.vectors, rows)
            vectors.append(unit_vectors(found[has_vector(found)]))
    where = np.flatnonzero(np.concatenate(has)) if has else np.zeros(0, np.int64)
    sketches, _ = read_sketches(held, where.tolist() if config.near else [])
    np.savez(
        file,
        ids=held.image_ids(where),
        bits=sketches.bits.numpy(),
        miniatures=sketches.miniatures.numpy(),
        vectors=np.concatenate([v for v in vectors if len(v)] or [np.zeros((0, 0), np.float32)]),
    )
