"""A model's vector of every record of a dataset, written beside it as files that filters read.

A file a shard (`data/vectors.py`), whole or not there, so that embedding that was stopped goes on; beside them
``about.json`` says whose vectors they are.
"""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from diptych.core.config import Config
from diptych.core.errors import ServeError
from diptych.data.candidates import CandidatePool, Rows
from diptych.data.executors.executor import Executor
from diptych.data.image_reader import ImageReader
from diptych.data.vectors import vector_path, write_vectors
from diptych.models.pretrained import Pretrained
from diptych.serve.by_shard import ShardImages, ask_by_shard, opened_anew


class EmbeddingConfig(Config):
    """What is embedded: `of` each record its first "image", or its first "text"'s first caption."""

    of: Literal["image", "text"] = "image"
    splits: tuple[str, ...] = ("train",)
    batch_size: int = 64


def embed_dataset(
    data: str | PathLike[str], model: str, name: str, executor: Executor, config: EmbeddingConfig | None = None
) -> Path:
    """Write the vectors called `name` of every record in the packed dataset `data`; returns their folder.

    `model`: a run's folder, openclip:PATH, hf:PATH or openai:PATH. A record without an image (a text), or whose image
    cannot be read, has a row of NaN. Raises ConfigError where vectors of that name are another model's, and ServeError
    where the model embeds no such thing.
    """
    config = config or EmbeddingConfig()
    pool, opened = CandidatePool(data, config.splits), opened_anew(model)
    if f"embed_{config.of}" not in opened.capabilities:
        raise ServeError(
            f"embedding needs a model with embed_{config.of}; got {type(opened.model).__name__} with "
            f"{', '.join(opened.capabilities) or 'none of the capabilities'}. Use a dual encoder such as clip:tiny."
        )
    about = {"model": opened.fingerprint, "of": config.of, "data": pool.dataset.fingerprint}
    work = partial(_embed_shard, config, name)
    return ask_by_shard(pool, model, work, partial(vector_path, pool, name), about, executor, f"embed {name}")


@torch.inference_mode()
def vectors_of(model: Pretrained, rows: Rows, config: EmbeddingConfig) -> Float32[ndarray, "n e"]:
    """The unit vectors of a shard's records; NaN where there is none, and no column where no record has one."""
    parts: list[tuple[list[int], Float32[ndarray, "n e"]]] = []
    if config.of == "text":
        places = [i for i, captions in enumerate(rows.captions) if captions]
        for start in range(0, len(places), config.batch_size):
            part = places[start : start + config.batch_size]
            parts.append((part, _checked(model.embed_text([rows.texts[i] for i in part]), rows, part)))
    else:
        network: Any = model.model
        reader = ImageReader(ShardImages(rows), model.model.config.image_format, config.batch_size)
        for batch in reader.batches(np.flatnonzero(rows.widths).tolist()):
            vectors = network.embed_image(batch.images.to(model.device)).float().cpu()
            parts.append((batch.places, _checked(vectors, rows, batch.places)))
    found = np.full((len(rows), parts[0][1].shape[1] if parts else 0), np.nan, dtype=np.float32)
    for part, made in parts:
        found[part] = made
    return found


def _checked(vectors: torch.Tensor, rows: Rows, places: list[int]) -> Float32[ndarray, "n e"]:
    if not vectors.isfinite().all():
        raise ServeError(
            f"embeddings must be finite; got NaN or infinity near {rows.uids[places[0]].tobytes().hex()}. "
            "The weights or the precision are broken: load an earlier checkpoint."
        )
    return np.asarray(vectors.numpy())


def _embed_shard(config: EmbeddingConfig, name: str, pool: CandidatePool, rows: Rows, model: Pretrained) -> None:
    write_vectors(pool, name, rows, vectors_of(model, rows, config))
