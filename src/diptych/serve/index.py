"""An exact index of a split's images: a matrix on disk, and the fingerprints of the model and the data it belongs to.

Exact on purpose: a million vectors of 512 are one gigabyte and one product, and approximate indexes that are built from
image vectors do badly for queries in words, which lie elsewhere in the space.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.errors import ServeError
from diptych.core.files import cache_dir, new_directory, write_json
from diptych.core.progress import say
from diptych.data.dataset import Dataset
from diptych.models.pretrained import Pretrained
from diptych.serve.embed import Embedded, embed_split, read_embedded

FORMAT = 1
INFO = "index.json"
_CHUNK = 1 << 16  # vectors that are scored at once


class Found(NamedTuple):
    """The best of an index for each query: scores, and places in the split, best first."""

    scores: Float[Tensor, "q k"]
    rows: Int64[Tensor, "q k"]


class Index:
    """One split's vectors, checked to belong to the model and the dataset that they are used with."""

    def __init__(self, folder: Path, info: dict[str, Any], embedded: Embedded) -> None:
        self.folder, self.info, self.embedded = folder, info, embedded

    def __len__(self) -> int:
        return len(self.embedded.rows)

    @classmethod
    def build(cls, folder: str | PathLike[str], model: Pretrained, dataset: Dataset, split: str) -> "Index":
        """Embed a split and write its index, whole or not at all, replacing what was there."""
        if not model.fingerprint:
            raise ServeError("an index needs a model with a fingerprint; got none. Save the model and load it again.")
        with new_directory(folder) as work:
            embedded = embed_split(model, dataset.split(split), work)
            info = {
                "format": FORMAT,
                "model": model.fingerprint,
                "dataset": dataset.fingerprint,
                "path": str(dataset.path.resolve()),
                "split": split,
                "count": len(embedded.rows),
                "width": int(embedded.matrix.shape[1]),
                "broken": {str(place): why for place, why in sorted(embedded.broken.items())},
            }
            write_json(work / INFO, info)
        if embedded.broken:
            say(f"{len(embedded.broken):,} images of {split} cannot be decoded and cannot be found; see {INFO}.")
        return cls.open(folder, model, dataset, split)

    @classmethod
    def open(cls, folder: str | PathLike[str], model: Pretrained, dataset: Dataset, split: str) -> "Index":
        """The index in `folder`. Raises ServeError where it belongs to another model, dataset or split."""
        folder = Path(folder)
        try:
            info = dict(json.loads((folder / INFO).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ServeError(f"an index must hold {INFO}; got {error} in {folder}. Build it again.") from None
        wanted = {"format": FORMAT, "model": model.fingerprint, "dataset": dataset.fingerprint, "split": split}
        for what, value in wanted.items():
            if info.get(what) != value:
                raise ServeError(
                    f"an index must belong to the {what} that it is used with; got one of {info.get(what)!r} for "
                    f"{value!r} in {folder}. Build it again: vectors of another {what} give nonsense, not hits."
                )
        return cls(folder, info, read_embedded(folder))

    @classmethod
    def cached(cls, model: Pretrained, run: Path | None, dataset: Dataset, split: str) -> "Index":
        """The index kept in the run (`index_folder`), built if it is not there or the model or data changed since."""
        folder = index_folder(run, model, dataset, split)
        if (folder / INFO).is_file():
            try:
                return cls.open(folder, model, dataset, split)
            except ServeError:
                say(f"the index in {folder} is of an earlier model or dataset: building it anew.")
        return cls.build(folder, model, dataset, split)

    def top(self, queries: Float[Tensor, "q e"], k: int) -> Found:
        """The k best vectors for each query by inner product; of equal scores (to 1e-6) the earlier record is first."""
        if queries.shape[1] != self.info["width"]:
            raise ServeError(
                f"queries must have the index's width of {self.info['width']}; got {queries.shape[1]}. "
                "Embed them with the model that the index belongs to."
            )
        k = min(k, len(self))
        scores = torch.empty(len(queries), 0)
        places = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self), _CHUNK):
            chunk = torch.from_numpy(self.embedded.matrix[start : start + _CHUNK].astype(np.float32))
            new = torch.round(queries @ chunk.T, decimals=6)
            place = torch.arange(start, start + len(chunk)).expand(len(queries), -1)
            scores, order = torch.cat([scores, new], 1).sort(dim=1, descending=True, stable=True)
            scores, places = scores[:, :k], torch.cat([places, place], 1).gather(1, order[:, :k])
        return Found(scores, torch.from_numpy(self.embedded.rows)[places])


def index_folder(run: Path | None, model: Pretrained, dataset: Dataset, split: str) -> Path:
    """RUN/index/<dataset>-<split>, of a checkpoint with its number; without a run, a folder of the user's cache."""
    name = f"{dataset.fingerprint[:16]}-{split}"
    if run is None:
        return cache_dir("index", model.fingerprint[:16] or "unknown") / name
    if run.parent.name == "checkpoints":
        return run.parent.parent / "index" / f"{name}-{run.name}"
    if run.name == "model" and (run.parent / "config.json").is_file():
        run = run.parent
    return run / "index" / name
