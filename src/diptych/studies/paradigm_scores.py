"""How a model of any paradigm is judged beside others: one matrix of scores, read both ways, and a probe.

A model is asked for what it can do. Whoever embeds is judged by cosines; whoever scores pairs in another way too
(matching, log p(image | text), minus a denoising error) is judged by that as well, and less what the picture makes
likely in any case; whoever writes, by log p(text | image), as it is and less log p(text).

log p(text) is that of a mixture over pictures of training (Lin et al., 2024, arXiv:2306.01879): before one
blank picture, which no training shows, a writer is sure of a few names, and unsure of others, for no reason.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import ConfigError, EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.scoring import ScoredItems, Scoring, choose_places
from diptych.models.pretrained import Pretrained
from diptych.models.writer import Writer

WAYS = {
    "cosine": "cosine",
    "score": "own score",
    "less_image": "own score, less the picture's own",
    "likelihood": "log p(text given picture)",
    "less_text": "log p(text given picture), less log p(text)",
}
"""How pairs are scored."""


def items_of(split: Any, count: int) -> tuple[list[int], list[str]]:
    """Places and first captions of `count` pictures from all over the split, no caption twice, always the same ones."""
    first: dict[str, int] = {}
    for place in range(len(split)):
        if captions := split.captions(place):
            first.setdefault(captions[0], place)
    if len(first) < count:
        raise ConfigError(
            f"items must be at most as many as pictures with a caption of their own in {split.name}; got {count}, and "
            f"there are {len(first)}. Lower it."
        )
    named = list(first.items())
    chosen = [named[i] for i in choose_places(named, count)]
    return [place for _, place in chosen], [name for name, _ in chosen]


@torch.inference_mode()
def scores_of(
    model: Pretrained,
    split: Any,
    places: Sequence[int],
    names: Sequence[str],
    others: tuple[Any, Sequence[int]] | None = None,
) -> dict[str, Float[Tensor, "n n"]]:
    """Scores of all pictures (rows) and all names, by each way that the model has; "score" is left out where it is the
    cosine, or the likelihood. `others`: a split and places in it, the pictures over which p(text) is a mean; without
    them that way is left out."""
    has: set[str] = set(model.capabilities)
    network: Any = model.model
    reader = ImageReader(split, network.config.image_format, 64)
    found: dict[str, Tensor] = {}
    if {"embed_image", "embed_text"} <= has:
        images = [network.embed_image(b.images.to(model.device)).float().cpu() for b in reader.batches(list(places))]
        found["cosine"] = torch.cat(images) @ model.embed_text(list(names)).T
    if "score" in has and getattr(type(network), "score", None) is not Writer.score:
        own = ScoredItems(model, reader, places, names, Scoring("score")).rows(0, len(places))
        if "cosine" not in found or not torch.allclose(own, found["cosine"], atol=1e-3):
            found["score"] = own
            if "image_prior" in has:
                images = [network.image_prior(b.images.to(model.device)) for b in reader.batches(list(places))]
                found["less_image"] = own - torch.cat(images).float().cpu()[:, None]
    if {"log_likelihood", "generate_text"} <= has:
        by = Scoring("log_likelihood")
        found["likelihood"] = ScoredItems(model, reader, places, names, by).rows(0, len(places))
        if others is not None:
            seen = ImageReader(others[0], network.config.image_format, 64)
            given = ScoredItems(model, seen, others[1], names, by).rows(0, len(others[1]))
            found["less_text"] = found["likelihood"] - (given.logsumexp(0) - math.log(len(given)))
    if reader.broken:
        named = ", ".join(f"{split.uid(p)}: {why}" for p, why in list(reader.broken.items())[:3])
        raise ConfigError(
            f"every picture that is judged on must be readable; {len(reader.broken)} are not ({named}). Pack the data "
            "again without them."
        )
    for way, scores in found.items():  # NaN is below every other number: its rank would be the best
        if not scores.isfinite().all():
            raise EvalError(
                f"scores must be finite; got {int((~scores.isfinite()).sum())} of {scores.numel()} that are not, by "
                f"the {WAYS[way]}. The training went wrong: look at the run's log."
            )
    return found


def ranks_of(scores: Float[Tensor, "n n"]) -> dict[str, list[int]]:
    """The rank of each picture's own name among all ("names"), and of each name's own picture ("pictures"); what scores
    as high stands before it, so that a model which cannot tell gets nothing."""
    own = scores.diagonal()
    return {
        "names": (scores >= own[:, None]).sum(1).tolist(),
        "pictures": (scores >= own[None]).sum(0).tolist(),
    }
