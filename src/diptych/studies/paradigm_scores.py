"""How a model of any paradigm is judged beside others: one matrix of scores, read both ways, and a probe.

A model is asked for what it can do. Whoever embeds is judged by cosines; whoever scores pairs in another way too
(matching, log p(text | image), log p(image | text), minus a denoising error) is judged by that as well, as it is, and
less what the words, or the picture, make likely in any case.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.errors import ConfigError, EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.scoring import ScoredItems, Scoring, choose_places
from diptych.models.pretrained import Pretrained

WAYS = {
    "cosine": "cosine",
    "score": "own score",
    "less_text": "own score, less the words' own likelihood",
    "less_image": "own score, less the picture's own likelihood",
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
    model: Pretrained, split: Any, places: Sequence[int], names: Sequence[str]
) -> dict[str, Float[Tensor, "n n"]]:
    """Scores of all pictures (rows) and all names, by each way that the model has; "score" is left out where it is the
    cosine."""
    has, network = set(model.capabilities), model.model
    reader = ImageReader(split, network.config.image_format, 64)
    found: dict[str, Tensor] = {}
    if {"embed_image", "embed_text"} <= has:
        asks: Any = network
        images = [asks.embed_image(b.images.to(model.device)).float().cpu() for b in reader.batches(list(places))]
        found["cosine"] = torch.cat(images) @ model.embed_text(list(names)).T
    if "score" in has:
        own = ScoredItems(model, reader, places, names, Scoring("score")).rows(0, len(places))
        if "cosine" not in found or not torch.allclose(own, found["cosine"], atol=1e-3):
            found |= _with_priors(model, reader, places, names, own)
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


def _with_priors(
    model: Pretrained, reader: ImageReader, places: Sequence[int], names: Sequence[str], own: Tensor
) -> dict[str, Tensor]:
    """The model's own scores, and less what the text and the picture make likely, where the model can say so."""
    network: Any = model.model
    found = {"score": own}
    if "log_likelihood" in model.capabilities:
        tokens, lengths = model.tokenizer.batch(list(names))
        priors = [
            network.text_prior(t.to(model.device), n).float().cpu()
            for t, n in zip(tokens.split(128), lengths.split(128), strict=True)
        ]
        found["less_text"] = own - torch.cat(priors)
    if "image_prior" in model.capabilities:
        rows = [network.image_prior(b.images.to(model.device)).float().cpu() for b in reader.batches(list(places))]
        found["less_image"] = own - torch.cat(rows)[:, None]
    return found


def ranks_of(scores: Float[Tensor, "n n"]) -> dict[str, list[int]]:
    """The rank of each picture's own name among all ("names"), and of each name's own picture ("pictures"); what scores
    as high stands before it, so that a model which cannot tell gets nothing."""
    own = scores.diagonal()
    return {
        "names": (scores >= own[:, None]).sum(1).tolist(),
        "pictures": (scores >= own[None]).sum(0).tolist(),
    }
