"""The captions that a model wrote of a split, with what belongs to them; and the same dealt out to wrong images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageReader
from diptych.evals.scoring import blank_images, distinct
from diptych.models.pretrained import Pretrained


class Written(NamedTuple):
    """Readable images' places, what people say of each, what the model says, and which images are equal. `blank` is
    what it says of a blank image."""

    places: list[int]
    references: list[tuple[str, ...]]
    captions: list[str]
    clusters: Int64[np.ndarray, " n"]
    blank: str | None


def captions_of(split: Any, place: int) -> tuple[str, ...]:
    """The distinct captions of a record; () of one that is no pair: questions with answers, pages, lone images."""
    texts, images = split.pieces(place)
    if len(texts) != 1 or len(images) != 1 or texts[0].role in ("question", "answer"):
        return ()
    return tuple(dict.fromkeys(t for t in texts[0].texts if t.strip()))


def write_captions(
    model: Pretrained,
    reader: ImageReader,
    references: Mapping[int, tuple[str, ...]],
    prompt: str = "",
    blind: bool = True,
    who: str = "captioning",
    **how: Any,
) -> Written:
    """What the model writes of the images whose places `references` holds, and (`blind`) of a blank one. `how` as
    `Pretrained.generate` takes it. Raises EvalError where there are not two different readable images."""
    kept: list[int] = []
    hashes: list[bytes] = []
    captions: list[str] = []
    for batch in reader.batches(list(references)):
        kept += batch.places
        hashes += batch.hashes
        captions += model.caption(batch.images, prompt, **how)
    clusters = distinct(hashes)
    if len(np.unique(clusters)) < 2:
        raise EvalError(
            f"{who} must be given at least 2 different readable images with captions; got "
            f"{len(np.unique(clusters))}, {len(references)} with captions and {len(reader.broken)} broken. "
            "Choose a larger split, or one whose records have captions (questions and answers: use vqa)."
        )
    blank = model.caption(blank_images(reader.format, 1), prompt, **how)[0] if blind else None
    return Written(kept, [references[p] for p in kept], captions, clusters, blank)


def dealt_out(clusters: Int64[np.ndarray, " n"], deals: int, seed: int) -> list[Int64[np.ndarray, " n"]]:
    """So many ways to give each image what was said of another: index arrays (n,) that never lead to an equal image,
    if no image makes up more than half of all."""
    n, largest = len(clusters), int(np.bincount(clusters).max())
    draws = numpy_generator(seed, "dealt_out")
    ranks = draws.permutation(int(clusters.max()) + 1)
    order = np.argsort(ranks[clusters], kind="stable")  # equal images lie together
    room = np.arange(largest, max(n - largest, largest) + 1)
    found = []
    for shift in draws.permutation(room)[:deals].tolist():
        index = np.empty(n, dtype=np.int64)
        index[order] = np.roll(order, shift)
        found.append(index)
    return found
