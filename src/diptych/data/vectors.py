"""Vectors of a pool's records by a model, as files beside the dataset that filters read: ``DIR/vectors/NAME/``.

    <split>-<shard>.npy        float16 (n, e), a row a record in the shard's order; NaN where there is no vector
    <split>-<shard>.uids.npy   uint8 (n, 16), whose rows they are
    about.json                 whose vectors they are

Written by ``diptych embed`` or by any program that writes such files. Nothing is unpickled. float16 moves a cosine of
unit vectors by at most about 5e-4.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32
from numpy import ndarray

from diptych.core.errors import DataError
from diptych.data.candidates import CandidatePool, Rows, Shard

VECTORS = "vectors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def vector_path(pool: CandidatePool, name: str, shard: Shard) -> Path:
    """Where the vectors called `name` of a shard are."""
    if not NAME.fullmatch(name):
        raise DataError(f"a name of vectors must be letters, digits, _ . -; got {name!r}. Rename them.")
    return pool.path / VECTORS / name / f"{shard}.npy"


def vector_names(pool: CandidatePool) -> list[str]:
    """The vectors that there are."""
    folder = pool.path / VECTORS
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def write_vectors(pool: CandidatePool, name: str, rows: Rows, vectors: Float[ndarray, "n e"]) -> Path:
    """Write one shard's vectors, whole or not at all; returns where."""
    if vectors.ndim != 2 or len(vectors) != len(rows):
        raise DataError(f"vectors must be one a record; got {vectors.shape} for {len(rows):,} of {rows.shard}.")
    path = vector_path(pool, name, rows.shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the vectors last: where they are, the uids are
    for target, array in ((_uids_of(path), rows.uids), (path, vectors.astype(np.float16))):
        beside = target.with_name(f".{target.name}.writing")
        with beside.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        beside.replace(target)
    return path


def read_vectors(pool: CandidatePool, name: str, rows: Rows) -> Float16[ndarray, "n e"]:
    """The vectors of a shard's records, in their order, mapped from the file where it has that order. Raises DataError
    where they are missing or damaged."""
    path = vector_path(pool, name, rows.shard)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        uids = np.load(_uids_of(path), allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"vectors called {name!r} must be there for shard {rows.shard} of {pool.path}; there are "
            f"{', '.join(vector_names(pool)) or 'none'}. Write them: diptych embed {pool.path} --with RUN --name {name}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be an array of numbers; got {error}. Delete it and embed again.") from None
    if found.ndim != 2 or found.dtype != np.float16 or uids.dtype != np.uint8 or uids.shape != (len(found), 16):
        raise DataError(
            f"{path} must be float16 (n, e) beside uids uint8 (n, 16); got {found.dtype} {found.shape} and "
            f"{uids.dtype} {uids.shape}. Delete both and embed again."
        )
    if np.array_equal(uids, rows.uids):
        return found
    known = {uid.tobytes(): i for i, uid in enumerate(uids)}
    places = [known.get(uid.tobytes(), -1) for uid in rows.uids]
    if min(places, default=0) < 0:
        raise DataError(
            f"{path} must hold a vector for every record of its shard; {sum(p < 0 for p in places):,} have none. "
            "Delete it and embed the dataset again."
        )
    return np.asarray(found[places])


def unit_vectors(vectors: Float[ndarray, "n e"]) -> Float32[ndarray, "n e"]:
    """The same in float32, each of length 1 (zero stays zero)."""
    wide = np.asarray(vectors, dtype=np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12))


def has_vector(vectors: Float[ndarray, "n e"]) -> Bool[ndarray, " n"]:
    """Which rows are vectors, and not NaN; of width 0, as where no record of a shard has one, none is."""
    return np.asarray(np.isfinite(vectors).all(1) & (vectors.shape[1] > 0))


def _uids_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".npy") + ".uids.npy")
