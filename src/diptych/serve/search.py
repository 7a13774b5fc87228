"""Search: the images of a dataset that lie closest to words, to pictures, or to a mixture of both."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

from diptych.checkpoints.native import load
from diptych.core.errors import ServeError
from diptych.core.files import write_atomic
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image, encode_png, resize_long_side
from diptych.models.pretrained import ImageLike, Pretrained
from diptych.serve.index import Index

Texts = str | Sequence[str] | None
AWAY = 0.5
"""How much the mean of the `less` queries counts against that of the others."""


@dataclass(frozen=True)
class Hit:
    """A found record. `score` is the cosine with the query: it orders hits, and means nothing across models.

    `key` is the record's name in its source, `shard` the tar that holds it, `row` its place in the split.
    """

    rank: int
    score: float
    uid: str
    key: str
    caption: str
    split: str
    row: int
    shard: str


def search(
    run: str | PathLike[str] | Pretrained,
    data: str | PathLike[str] | Dataset,
    text: Texts = None,
    image: ImageLike | None = None,
    k: int = 10,
    split: str = "",
    less_text: Texts = None,
    less_image: ImageLike | None = None,
) -> list[Hit]:
    """The k images of a dataset (of one split, or of all of them) nearest to the query, best first.

    Several texts and images are averaged; what is in `less_text` and `less_image` is moved away from. That is a shift
    of the vector and no negation: "not red" and "without a hat" are words that contrastive models hardly understand.
    Vectors are computed once and kept in the run.
    """
    if k < 1:
        raise ServeError(f"k must be at least 1; got {k}. It says how many hits to give.")
    model = run if isinstance(run, Pretrained) else load(Path(run))
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    query = embed_query(model, text, image, less_text, less_image)
    names = [split] if split else [name for name, one in dataset.splits.items() if len(one)]
    folder = None if isinstance(run, Pretrained) else Path(run)
    found: list[tuple[float, str, int]] = []
    for name in names:
        dataset.split(name)  # says which there are, before anything is embedded
        best = Index.cached(model, folder, dataset, name).top(query[None], k)
        found += [(s, name, r) for s, r in zip(best.scores[0].tolist(), best.rows[0].tolist(), strict=True)]
    found.sort(key=lambda hit: -hit[0])  # stable: equal scores stay in the order of splits and records
    return [_hit(dataset, rank, *hit) for rank, hit in enumerate(found[:k], 1)]


def embed_query(
    model: Pretrained,
    text: Texts = None,
    image: ImageLike | None = None,
    less_text: Texts = None,
    less_image: ImageLike | None = None,
) -> Float[Tensor, " e"]:
    """The unit vector of a query: the mean of what is wanted, minus AWAY times the mean of what is not."""
    wanted, unwanted = _vectors(model, text, image), _vectors(model, less_text, less_image)
    if not len(wanted):
        raise ServeError('a search must have words or an image to look for; got none. Example: text="a red fruit"')
    query = wanted.mean(0)
    if len(unwanted):
        query = query - AWAY * unwanted.mean(0)
    return normalize(query, dim=0)


def write_contact_sheet(
    hits: Sequence[Hit],
    data: str | PathLike[str] | Dataset,
    png: str | PathLike[str],
    title: str = "",
    columns: int = 5,
    side: int = 160,
) -> Path:
    """A PNG that shows the hits in order, with rank, score and caption under each."""
    if not hits:
        raise ServeError("a contact sheet must show at least one hit; got none. Search with a larger k.")
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    columns = min(columns, len(hits))
    pad, words, head = 12, 40, 34 if title else 0
    height = head + -(-len(hits) // columns) * (side + words + pad) + pad
    sheet = Image.new("RGB", (pad + columns * (side + pad), height), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(12)
    if title:
        draw.text((pad, pad), _fit(draw, title, sheet.width - 2 * pad, large), "black", large)
    for place, hit in enumerate(hits):
        left = pad + place % columns * (side + pad)
        top = head + pad + place // columns * (side + words + pad)
        pixels = resize_long_side(decode_image(dataset.split(hit.split).image_bytes(hit.row)), side)
        tile = ImageOps.contain(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()), (side, side))
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        draw.rectangle((left - 1, top - 1, left + side, top + side), outline="#d8d8d8")
        draw.text((left, top + side + 4), f"{hit.rank}   {hit.score:.3f}", "#707070", small)
        draw.text((left, top + side + 20), _fit(draw, hit.caption, side, small), "black", small)
    path = Path(png)
    write_atomic(
        path,
        encode_png(
            torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
            .view(sheet.height, sheet.width, 3)
            .permute(2, 0, 1)
        ),
    )
    return path


def save_hits(
    hits: Sequence[Hit], data: str | PathLike[str] | Dataset, folder: str | PathLike[str], title: str = ""
) -> Path:
    """Write the found images as they were packed, hits.json and hits.png into `folder`; returns the contact sheet."""
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    folder = Path(folder)
    for hit in hits:
        record = dataset.split(hit.split).record(hit.row)
        segment = record.first("image")
        assert segment is not None, "an indexed record holds an image"
        name = re.sub(r"[^\w.-]+", "_", hit.key).strip("._").encode()[-150:].decode(errors="ignore") or hit.uid
        name = name.removesuffix(f".{segment.format}")
        write_atomic(folder / f"{hit.rank:03}_{name}.{segment.format}", segment.data)
    write_atomic(folder / "hits.json", json.dumps([asdict(h) for h in hits], indent=2, ensure_ascii=False) + "\n")
    return write_contact_sheet(hits, dataset, folder / "hits.png", title)


def _vectors(model: Pretrained, text: Texts, image: ImageLike | None) -> Float[Tensor, "n e"]:
    parts = []
    for wanted, needs, embed in ((text, "embed_text", model.embed_text), (image, "embed_image", model.embed_image)):
        if wanted is None:
            continue
        if needs not in model.capabilities:
            raise ServeError(
                f"this search needs a model with {needs}; got {type(model.model).__name__} with "
                f"{', '.join(model.capabilities) or 'none of the capabilities'}. Use a dual encoder such as clip:tiny."
            )
        if isinstance(wanted, str) and not wanted.strip():
            raise ServeError('a search must have words; got an empty text. Example: text="a red fruit"')
        parts.append(embed(wanted))
    return torch.cat(parts) if parts else torch.empty(0, 0)


def _hit(dataset: Dataset, rank: int, score: float, split: str, row: int) -> Hit:
    one = dataset.split(split)
    captions = one.captions(row)
    return Hit(
        rank=rank,
        score=score,
        uid=one.uid(row),
        key=one.record(row).key,
        caption=captions[0] if captions else "",
        split=split,
        row=row,
        shard=str(one.shard_of(row)),
    )


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
