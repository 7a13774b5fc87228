"""What a model says of every pair of a dataset, written as columns that filters read: nothing is copied or dropped.

A file a shard (`data/candidates.py`), as `by_shard.py` has it. A pair's score is the cosine of its vectors, or what the
model's own `score` says of it: a matching logit, log p(text | image).
"""

from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from diptych.core.config import Config
from diptych.core.errors import ServeError
from diptych.data.candidates import CandidatePool, Rows, write_scores
from diptych.data.executors.executor import Executor
from diptych.data.image_reader import ImageReader
from diptych.models.pretrained import Pretrained
from diptych.serve.by_shard import ShardImages, ask_by_shard, opened_anew


class ScoringConfig(Config):
    """How pairs are scored.

    by        "embeddings": the cosine; "score": the model's own; "auto": embeddings where it has them
    captions  the "first" of a record's captions alone, or the "mean" or the "max" over all of them
    splits    which of the dataset
    """

    by: Literal["auto", "embeddings", "score"] = "auto"
    captions: Literal["first", "mean", "max"] = "first"
    splits: tuple[str, ...] = ("train",)
    batch_size: int = 64


def score_dataset(
    data: str | PathLike[str], model: str, name: str, executor: Executor, config: ScoringConfig | None = None
) -> Path:
    """Write the scores called `name` of every pair in the packed dataset `data`; returns the folder that they are in.

    `model`: a run's folder, openclip:PATH, hf:PATH or openai:PATH. A record without an image or a text, or whose image
    cannot be read, has the score NaN. Raises ConfigError where scores of that name are another model's.
    """
    config = config or ScoringConfig()
    pool, opened = CandidatePool(data, config.splits), opened_anew(model)
    how = _how(opened, config)
    about = {"model": opened.fingerprint, "by": how, "captions": config.captions, "data": pool.dataset.fingerprint}
    work = partial(_score_shard, config, name, how)
    return ask_by_shard(pool, model, work, partial(pool.score_path, name), about, executor, f"score {name}")


def scores_of_pairs(model: Pretrained, rows: Rows, how: str, config: ScoringConfig) -> Float64[ndarray, " n"]:
    """The scores of a shard's pairs; NaN where there is none."""
    found = np.full(len(rows), np.nan)
    said = [c if config.captions != "first" else c[:1] for c in rows.captions]
    reader = ImageReader(ShardImages(rows), model.model.config.image_format, config.batch_size)
    places = [i for i in range(len(rows)) if said[i] and rows.widths[i]]
    mean = config.captions == "mean"
    for batch in reader.batches(places):
        texts = [said[i] for i in batch.places]
        for place, values in zip(batch.places, _each(model, batch.images, texts, how), strict=True):
            found[place] = values.mean() if mean else values.max()
    return found


@torch.inference_mode()
def _each(
    model: Pretrained, images: torch.Tensor, texts: list[list[str]], how: str
) -> Iterator[Float64[ndarray, " k"]]:
    """The scores of each image with its own texts."""
    network: Any = model.model
    images = images.to(model.device)
    if how == "embeddings":
        image = network.embed_image(images).float().cpu()
        text = model.embed_text([t for of in texts for t in of])
        at = 0
        for i, of in enumerate(texts):
            yield (text[at : at + len(of)] @ image[i]).numpy().astype(np.float64)
            at += len(of)
        return
    for i, of in enumerate(texts):
        tokens, lengths = model.tokenizer.batch(of)
        yield network.score(images[i : i + 1], tokens.to(model.device), lengths)[0].double().cpu().numpy()


def _score_shard(
    config: ScoringConfig, name: str, how: str, pool: CandidatePool, rows: Rows, model: Pretrained
) -> None:
    write_scores(pool, name, rows, scores_of_pairs(model, rows, how, config))


def _how(model: Pretrained, config: ScoringConfig) -> str:
    has, embeds = set(model.capabilities), {"embed_image", "embed_text"}
    how = config.by if config.by != "auto" else ("embeddings" if embeds <= has else "score")
    if not (embeds if how == "embeddings" else {"score"}) <= has:
        raise ServeError(
            f"scoring by {how} needs a model that can; got {type(model.model).__name__} with "
            f"{', '.join(sorted(has)) or 'none of the capabilities'}. Choose another model, or by=auto."
        )
    return how
