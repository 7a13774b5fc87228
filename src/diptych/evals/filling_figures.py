"""What a report shows of filling in: errors with and without the other side, what that side is worth, images that were
rebuilt, and texts with what was hidden of them."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, UInt8
from torch import Tensor

from diptych.data.decode import encode_png
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate
from diptych.evals.filled_pairs import CONDITIONS, Hidden, error_name, hidden_batches
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures, Words

SIDE, GAP = 96, 4
"""Pixels of a panel, and between two panels."""
BESIDE = {
    "image": ("its words", "another pair's words", "no words"),
    "text": ("its picture", "another pair's picture", "no picture"),
}
GREY = 128
"""The colour in which hidden cells are shown."""


def filling_figures(found: Any, model: Pretrained, reader: ImageReader) -> tuple[Figure, ...]:
    """The figures of what was found (`filling_in.Found`)."""
    figures: list[Figure] = [_preferred(found.metrics), _levels(found, model.model), _worth(found)]
    if most := found.config.pictures:
        figures += [_pictures(found, model, reader, most), _texts(found, model, reader, most)]
    return tuple(figures)


def hidden_cells(images: UInt8[Tensor, "b 3 h w"], masked: Bool[Tensor, "b n"], grid: tuple[int, int]) -> Tensor:
    """The images with their hidden cells in grey (b 3 h w)."""
    cells = masked.view(-1, 1, *grid).float()
    hidden = F.interpolate(cells, size=images.shape[-2:], mode="nearest").bool()
    return torch.where(hidden, GREY, images).to(torch.uint8)


def panels(images: Sequence[UInt8[Tensor, "3 h w"]]) -> str:
    """Images side by side as one PNG in base64."""
    shown = [F.interpolate(i[None].float(), size=(SIDE, SIDE), mode="nearest")[0].to(torch.uint8).cpu() for i in images]
    white = torch.full((3, SIDE, GAP), 255, dtype=torch.uint8)
    row = [part for image in shown for part in (white, image)][1:]
    return base64.b64encode(encode_png(torch.cat(row, dim=2).contiguous())).decode()


def _preferred(metrics: dict[str, Estimate]) -> Intervals:
    names = {
        "partner_preferred": "both",
        "words_preferred": "images, by their words",
        "picture_preferred": "texts, by their picture",
    }
    rows = []
    for name, said in names.items():
        e = metrics[name]
        rows.append(Interval(name=said, value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n))
    words = "How often a hidden part is rebuilt better beside its own other side than beside another pair's."
    return Intervals(title="The right other side is preferred", words=words, rows=tuple(rows))


def _levels(found: Any, network: Any) -> Words:
    units = {"image": network.fill_unit, "text": "nats a token"}
    rows = []
    for side, beside in BESIDE.items():
        for condition, said in zip(CONDITIONS, beside, strict=True):
            e = found.metrics[error_name(side, condition)]
            rows.append(
                (f"hidden {side}, beside {said}", f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}", units[side])
            )
    head = ("", "error", "95 %", "unit")
    words = "What is hidden is the same in all three rows; lower is better."
    return Words(title="Errors of what was hidden", words=words, head=head, rows=tuple(rows), numeric=(1, 2))


def _worth(found: Any) -> Words:
    said = {
        "words_help": "words, over another pair's",
        "words_help_over_none": "words, over none",
        "picture_help": "picture, over another pair's",
        "picture_help_over_none": "picture, over none",
    }
    rows = []
    for name, verdict in found.verdicts().items():
        ends = f"{verdict['low']:+.4f} to {verdict['high']:+.4f}"
        p = f"{verdict['adjusted_p_value']:.4f}"
        rows.append((said[name], f"{verdict['difference']:+.4f}", ends, p, verdict["verdict"]))
    words = "By how much the error falls, pair by pair; p by sign flips, for all four together (Holm)."
    head = ("", "error less", "95 %", "p", "")
    return Words(title="What the other side is worth", words=words, head=head, rows=tuple(rows), numeric=(1, 2, 3))


def _pictures(found: Any, model: Pretrained, reader: ImageReader, most: int) -> Pictures:
    """Those images that their words help most, and those that they help least."""
    network: Any = model.model
    order = _ends(found.values["words_help"], most)
    shown: list[Picture] = []
    rebuilds = hasattr(network, "rebuild")
    for x in hidden_batches(model, reader, found.pairs, found.config.hiding, order):
        sheets = [x.images, hidden_cells(x.images, x.patches, network.fill_grid()), *_rebuilt(network, x)]
        for row in range(len(x.images)):
            i = order[len(shown)]
            right, other, _ = (found.errors["image", c][i] for c in CONDITIONS)
            instead = found.pairs.captions[found.pairs.partner[i]]
            shown.append(
                Picture(
                    image=panels([s[row] for s in sheets]),
                    caption=found.pairs.captions[i],
                    detail=f"error {right:.3f}; with '{instead}' {other:.3f}",
                )
            )
    which = "original, hidden, rebuilt with its words, rebuilt with another pair's" if rebuilds else "original, hidden"
    words = f"From left to right: {which}. First those images that their words help most, then least."
    return Pictures(title="Images with hidden cells", words=words, pictures=tuple(shown))


@torch.inference_mode()
def _rebuilt(network: Any, x: Hidden) -> list[Tensor]:
    if not hasattr(network, "rebuild"):
        return []
    return [
        network.rebuild(x.images, x.patches, x.tokens, x.lengths),
        network.rebuild(x.images, x.patches, x.other_tokens, x.other_lengths),
    ]


def _texts(found: Any, model: Pretrained, reader: ImageReader, most: int) -> Words:
    """Those texts that their picture helps most, and those that it helps least."""
    order = _ends(found.values["picture_help"], most)
    rows: list[tuple[str, ...]] = []
    for x in hidden_batches(model, reader, found.pairs, found.config.hiding, order):
        for ids, words, length in zip(x.tokens.tolist(), x.words.tolist(), x.lengths.tolist(), strict=True):
            numbers = [f"{found.errors['text', c][order[len(rows)]]:.2f}" for c in CONDITIONS]
            rows.append((_bracketed(model, ids[:length], words[:length]), *numbers))
    words = "In brackets what was hidden; -log p of it, in nats a token. First those that their picture helps most."
    head = ("text", *(f"beside {said}" for said in BESIDE["text"]))
    return Words(title="Texts with hidden words", words=words, head=head, rows=tuple(rows), numeric=(1, 2, 3))


def _bracketed(model: Pretrained, ids: list[int], hidden: list[bool]) -> str:
    """A text with its hidden stretches in brackets."""
    parts: list[tuple[bool, list[int]]] = []
    for token, is_hidden in zip(ids, hidden, strict=True):
        if not parts or parts[-1][0] != is_hidden:
            parts.append((is_hidden, []))
        parts[-1][1].append(token)
    said = [(is_hidden, model.tokenizer.decode(tokens).strip()) for is_hidden, tokens in parts]
    return " ".join(f"[{text}]" if is_hidden else text for is_hidden, text in said if text or is_hidden)


def _ends(values: Float64[np.ndarray, " n"], most: int) -> list[int]:
    """Of the largest and of the smallest half as many."""
    order = np.argsort(-values, kind="stable").tolist()
    if len(order) <= most:
        return order
    last = most // 2
    return order[: most - last] + (order[-last:] if last else [])
