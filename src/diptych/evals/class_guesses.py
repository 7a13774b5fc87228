"""Which class an image is by the words for the classes: prompts' vectors averaged, or their scores."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from diptych.data.image_reader import ImageReader
from diptych.evals.prompts import fill
from diptych.evals.ranking import check_finite
from diptych.evals.scoring import PAIRS_SIDE, EmbeddedItems, Gallery, Items, ScoredItems, Scoring, SomeTexts
from diptych.models.pretrained import Pretrained

PROMPTS = 8192
"""Prompts whose vectors are held at once."""


class Guesses(NamedTuple):
    """What a set of prompts says of every image. `confidence` is the softmax's peak at the model's own scale."""

    predicted: Int64[np.ndarray, " n"]
    in_top_5: Bool[np.ndarray, " n"]
    confidence: Float64[np.ndarray, " n"] | None


def class_vectors(model: Pretrained, names: tuple[str, ...], templates: tuple[str, ...]) -> Float[Tensor, "c e"]:
    """The mean of each class's unit prompt vectors, made unit again.

    Prompts go to the model a template after the other, where they begin alike, and many at a time.
    """
    total, some = torch.zeros(()), max(1, PROMPTS // len(names))
    for part in (templates[i : i + some] for i in range(0, len(templates), some)):
        vectors = normalize(model.embed_text([fill(t, n) for t in part for n in names]), dim=1)
        total = total + vectors.unflatten(0, (len(part), len(names))).sum(0)
    return normalize(total, dim=1)


def class_scores(
    items: SomeTexts | EmbeddedItems, num_classes: int, num_images: int
) -> Iterator[tuple[int, Float[Tensor, "b c"]]]:
    """The scores of some images at a time for every class, with the number of the first: of each template in turn every
    class's prompt (averaged over the templates), or every class's vector."""
    step = PAIRS_SIDE if isinstance(items, SomeTexts) else max(1, (1 << 22) // num_classes)
    for start in range(0, num_images, step):
        rows = items.rows(start, min(start + step, num_images))
        check_finite(rows)
        yield start, rows.unflatten(1, (-1, num_classes)).mean(1)


def guess(
    items: SomeTexts | EmbeddedItems, names: tuple[str, ...], truth: Int64[np.ndarray, " n"], scale: float | None
) -> Guesses:
    """Classify every image by its scores, some images at a time."""
    predicted, in_top_5, confidence = [], [], []
    for start, scores in class_scores(items, len(names), len(truth)):
        predicted.append(scores.argmax(1))
        target = torch.from_numpy(truth[start : start + len(scores)])
        in_top_5.append((scores.topk(min(5, len(names)), 1).indices == target[:, None]).any(1))
        if scale is not None:
            confidence.append((scores.double() * scale).softmax(1).amax(1))
    return Guesses(
        torch.cat(predicted).numpy(), torch.cat(in_top_5).numpy(), torch.cat(confidence).numpy() if confidence else None
    )


def prompt_scorer(
    model: Pretrained,
    reader: ImageReader,
    gallery: Gallery,
    names: tuple[str, ...],
    sets: Mapping[str, tuple[str, ...]],
    scoring: Scoring,
) -> Callable[[tuple[str, ...]], SomeTexts | EmbeddedItems]:
    """From templates to what scores them. Where pairs are scored, every prompt of every set is scored in one pass."""
    vectors = gallery.vectors
    if vectors is not None:
        return lambda templates: EmbeddedItems(vectors, class_vectors(model, names, templates))
    prompts = list(dict.fromkeys(fill(t, n) for templates in sets.values() for t in templates for n in names))
    items: Items = ScoredItems(model, reader, gallery.places, prompts, scoring)
    column = {prompt: i for i, prompt in enumerate(prompts)}
    return lambda templates: SomeTexts(items, [column[fill(t, n)] for t in templates for n in names])


def probability_scale(model: Pretrained, scoring: Scoring) -> float | None:
    """What makes scores probabilities: the learned logit scale, or 1 for log p, which are (of whole texts) already."""
    if scoring.by == "log_likelihood":
        return None if scoring.per_token else 1.0
    log_scale = getattr(model.model, "log_logit_scale", None)
    return None if log_scale is None else float(torch.as_tensor(log_scale).detach().exp())
