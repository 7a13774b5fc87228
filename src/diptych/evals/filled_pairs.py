"""Pairs of which a part is hidden, and how badly a model rebuilds it: beside its partner, another's, and alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.seeds import fold
from diptych.data.image_reader import ImageReader
from diptych.data.tokenize import Encoded
from diptych.evals.scoring import distinct, read_gallery
from diptych.models.pretrained import Pretrained
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens

CONDITIONS = ("right", "other", "none")
"""Beside what something is rebuilt: its own partner, another pair's, nothing."""
SIDES = ("image", "text")

_BESIDE = {
    "image": {"right": "", "other": "_with_other_words", "none": "_without_words"},
    "text": {"right": "", "other": "_with_other_picture", "none": "_without_picture"},
}

Errors = dict[tuple[str, str], Float64[np.ndarray, " n"]]
"""By (side that is rebuilt, condition): of each pair the mean over what was hidden of it."""


@dataclass(frozen=True)
class Pairs:
    """Readable images with their first captions. `partner`: of each the pair whose words and picture it is shown
    instead, of another image and another text; `keys` decide what is hidden."""

    places: list[int]
    clusters: Int64[np.ndarray, " n"]
    captions: list[str]
    rows: list[Encoded]
    partner: list[int]
    keys: Int64[Tensor, " n"]
    too_short: int

    def __len__(self) -> int:
        return len(self.places)


class Hidden(NamedTuple):
    """Some pairs on the model's device (lengths stay on the host), what is hidden of them, and their others."""

    images: UInt8[Tensor, "b 3 s s"]
    patches: Bool[Tensor, "b n"]
    tokens: Int64[Tensor, "b t"]
    lengths: Int64[Tensor, " b"]
    words: Bool[Tensor, "b t"]
    other_images: UInt8[Tensor, "b 3 s s"]
    other_tokens: Int64[Tensor, "b u"]
    other_lengths: Int64[Tensor, " b"]


class Hiding(NamedTuple):
    """How much is hidden."""

    patches: PatchMaskingConfig
    tokens: TokenMaskingConfig
    seed: int


def read_pairs(model: Pretrained, reader: ImageReader, places: Sequence[int], seed: int, who: str) -> Pairs:
    """Of the records at `places` those that have a readable image and a caption of which something can be hidden."""
    split = reader.split
    told = [p for p in places if split.captions(p)]
    encoded = model.tokenizer.encode_all([split.captions(p)[0] for p in told]) if told else []
    rows = {p: e for p, e in zip(told, encoded, strict=True) if len(e.ids) > 2}  # the first and last are never hidden
    if len(rows) < 2:
        raise EvalError(
            f"{who} must be given at least 2 pairs of an image and a caption; got {len(rows)} of {len(places)} "
            "records. Choose a larger split, or one with captions."
        )
    gallery = read_gallery(model, reader, list(rows), who, False)
    kept = gallery.places
    return Pairs(
        places=kept,
        clusters=distinct(gallery.hashes),
        captions=[split.captions(p)[0] for p in kept],
        rows=[rows[p] for p in kept],
        partner=partners([tuple(rows[p].ids) for p in kept], gallery.hashes, who),
        keys=torch.tensor([fold(seed, "filling_in", split.uid(p)) for p in kept]),
        too_short=len(told) - len(rows),
    )


def partners(texts: Sequence[tuple[int, ...]], hashes: Sequence[bytes], who: str) -> list[int]:
    """For each pair another one of other words and another picture: the next such, half the way round from it."""
    n, found = len(texts), []
    for i in range(n):
        others = ((i + n // 2 + k) % n for k in range(n))
        j = next((j for j in others if texts[j] != texts[i] and hashes[j] != hashes[i]), None)
        if j is None:
            raise EvalError(
                f"{who} must be given pairs that differ in image and caption; got {n} of which one has no other. "
                "Choose a larger split, or one whose captions differ."
            )
        found.append(j)
    return found


def hidden_batches(
    model: Pretrained, reader: ImageReader, pairs: Pairs, hiding: Hiding, chosen: Sequence[int] | None = None
) -> Iterator[Hidden]:
    """The pairs (`chosen`: these), in order. What is hidden of a pair does not depend on the others."""
    network: Any = model.model
    order = list(range(len(pairs)) if chosen is None else chosen)
    mine = reader.batches([pairs.places[i] for i in order])
    theirs = reader.batches([pairs.places[pairs.partner[i]] for i in order])
    start = 0
    for own, other in zip(mine, theirs, strict=True):
        part = order[start : start + len(own.places)]
        start += len(part)
        tokens, lengths = model.tokenizer.pad([pairs.rows[i] for i in part])
        wrong, wrong_lengths = model.tokenizer.pad([pairs.rows[pairs.partner[i]] for i in part])
        keys = pairs.keys[part]
        words = mask_tokens(tokens, lengths, keys, hiding.tokens, mask_id=0, vocab_size=1).masked
        patches = mask_patches(keys, network.fill_grid(), hiding.patches)
        to = model.device
        yield Hidden(
            own.images.to(to),
            patches.to(to),
            tokens.to(to),
            lengths,
            words.to(to),
            other.images.to(to),
            wrong.to(to),
            wrong_lengths,
        )


@torch.inference_mode()
def measure(model: Pretrained, reader: ImageReader, pairs: Pairs, hiding: Hiding, who: str) -> Errors:
    """How badly each pair's hidden part is rebuilt, under each condition."""
    network: Any = model.model
    found: dict[tuple[str, str], list[Tensor]] = {(s, c): [] for s in SIDES for c in CONDITIONS}
    for x in hidden_batches(model, reader, pairs, hiding):
        words = ((x.tokens, x.lengths), (x.other_tokens, x.other_lengths), (None, None))
        for condition, (tokens, lengths) in zip(CONDITIONS, words, strict=True):
            errors = network.fill_image(x.images, x.patches, tokens, lengths)
            found["image", condition].append(_mean(errors, x.patches))
        for condition, images in zip(CONDITIONS, (x.images, x.other_images, None), strict=True):
            errors = network.fill_text(x.tokens, x.lengths, x.words, images)
            found["text", condition].append(_mean(errors, x.words))
    errors = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    for (side, condition), values in errors.items():
        if not np.isfinite(values).all():
            raise EvalError(
                f"{who} must be given finite errors; got {int((~np.isfinite(values)).sum())} of {len(values)} that are "
                f"not ({side}, {condition}). The weights or the precision are broken: load an earlier checkpoint."
            )
    return errors


def error_name(side: str, condition: str) -> str:
    """The metric of an error: "image_error", "text_error_without_picture"."""
    return f"{side}_error{_BESIDE[side][condition]}"


def _mean(errors: Tensor, hidden: Tensor) -> Tensor:
    """Over what is hidden of each pair."""
    return (torch.where(hidden, errors.double(), 0).sum(1) / hidden.sum(1)).cpu()
