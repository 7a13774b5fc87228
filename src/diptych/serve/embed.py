"""A split's images as one matrix on disk, written as it is computed: neither images nor vectors need fit in memory."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from diptych.core.errors import ServeError
from diptych.core.progress import track
from diptych.data.image_reader import ImageReader
from diptych.models.pretrained import Pretrained

MATRIX, ROWS, UIDS = "embeddings.npy", "rows.npy", "uids.npy"


class Embedded(NamedTuple):
    """What `embed_split` wrote: a memory-mapped matrix (n, e) of unit vectors, each row's place in the split and its
    uid (32 hex digits), and which places could not be decoded, with the reason."""

    matrix: np.ndarray
    rows: Int64[np.ndarray, " n"]
    uids: np.ndarray
    broken: dict[int, str]


def embed_split(
    model: Pretrained,
    split: Any,
    folder: str | PathLike[str],
    batch_size: int = 64,
    dtype: Literal["float16", "float32"] = "float16",
) -> Embedded:
    """Embed every image of `split` into `folder` (embeddings.npy, rows.npy, uids.npy; no pickle in any).

    float16 halves the size and moves a cosine by at most about 5e-4. Images that cannot be decoded have no row.
    Raises ServeError where the model embeds no images, gives NaN, or no image can be read.
    """
    if "embed_image" not in model.capabilities:
        raise ServeError(
            f"embedding needs a model with embed_image; got {type(model.model).__name__} with "
            f"{', '.join(model.capabilities) or 'none of the capabilities'}. Use a dual encoder such as clip:tiny."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reader = ImageReader(split, model.model.config.image_format, batch_size)
    network: Any = model.model
    rows: list[int] = []
    raw, width = folder / ".embeddings.raw", 0
    batches = -(-len(split) // batch_size)
    with open(raw, "wb") as f, torch.inference_mode():
        for batch in track(
            reader.batches(range(len(split))), f"embedding {split.name}, batches of {batch_size}", total=batches
        ):
            vectors = network.embed_image(batch.images.to(model.device)).float().cpu()
            if not vectors.isfinite().all():
                raise ServeError(
                    f"embeddings must be finite; got NaN or infinity for an image near {split.uid(batch.places[0])}. "
                    "The weights or the precision are broken: load an earlier checkpoint."
                )
            f.write(np.ascontiguousarray(vectors.numpy().astype(dtype)).data)
            rows += batch.places
            width = vectors.shape[1]
    if not rows:
        raw.unlink()
        raise ServeError(f"a split must hold a readable image; got {len(split)} records and none in {split.name}.")
    _prepend_header(raw, folder / MATRIX, (len(rows), width), dtype)
    np.save(folder / ROWS, np.array(rows, dtype=np.int64))
    np.save(folder / UIDS, np.array([split.uid(r) for r in rows], dtype="S32"))
    return read_embedded(folder, reader.broken)


def read_embedded(folder: str | PathLike[str], broken: dict[int, str] | None = None) -> Embedded:
    """What `embed_split` wrote into `folder`, the matrix memory-mapped. Raises ServeError where it is damaged."""
    folder = Path(folder)
    try:
        matrix = np.load(folder / MATRIX, mmap_mode="r", allow_pickle=False)
        rows = np.load(folder / ROWS, allow_pickle=False)
        uids = np.load(folder / UIDS, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ServeError(f"an index must hold {MATRIX}, {ROWS} and {UIDS}; got {error}. Delete {folder}.") from None
    if matrix.ndim != 2 or not len(matrix) == len(rows) == len(uids):
        raise ServeError(
            f"an index must hold equally many vectors, rows and uids; got {matrix.shape}, {rows.shape} and "
            f"{uids.shape}. Delete {folder}, and it is made anew."
        )
    return Embedded(matrix, rows, uids, broken or {})


def _prepend_header(raw: Path, path: Path, shape: tuple[int, int], dtype: str) -> None:
    """The .npy file of a raw array whose number of rows was not known when its first one was written."""
    whole = np.memmap(raw, dtype=dtype, mode="r", shape=shape)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    step = max(1, (1 << 24) // shape[1])
    for start in range(0, shape[0], step):
        out[start : start + step] = whole[start : start + step]
    out.flush()
    del whole, out
    raw.unlink()
