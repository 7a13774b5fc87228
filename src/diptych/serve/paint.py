"""Painting: a model's pictures of texts, one as it is or many as a grid with their words, written as a PNG."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diptych.checkpoints.native import load
from diptych.core.config import override
from diptych.core.errors import ServeError
from diptych.core.files import write_atomic
from diptych.data.decode import encode_png
from diptych.models.painting import Painting
from diptych.models.pretrained import Pretrained

LEAST_SIDE = 128
"""In a grid, smaller pictures are enlarged by a whole number, each pixel to a square, until they have this side."""


def paint(
    run: str | PathLike[str] | Pretrained,
    texts: Sequence[str],
    out: str | PathLike[str],
    seeds: int = 1,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Paint every text and write the PNG `out`; returns its path. `settings` are field=value of `Painting`.

    One text with one seed is written as the model paints it, pixel by pixel. Otherwise a grid: a row a text, under its
    words, with a picture for each of the seeds seed, seed + 1, ...; the first column is what one seed alone gives.
    """
    path = Path(out)
    how = override(Painting(), list(settings))
    assert isinstance(how, Painting)
    _check(texts, path, seeds, overwrite)
    model = run if isinstance(run, Pretrained) else load(Path(run))
    if "generate_image" not in model.capabilities:
        raise ServeError(
            f"painting must be asked of a model that paints; got {type(model.model).__name__} with "
            f"{', '.join(model.capabilities) or 'none of the capabilities'}. Train one with a recipe that paints (all: "
            "diptych recipes)."
        )
    values = {name: getattr(how, name) for name in Painting.model_fields}
    columns = [model.paint(list(texts), **{**values, "seed": how.seed + n}) for n in range(seeds)]
    rows = torch.stack(columns, 1)  # (texts, seeds, 3, h, w)
    write_atomic(path, encode_png(rows[0, 0] if rows.shape[:2] == (1, 1) else grid(rows, texts)))
    return path


def grid(rows: UInt8[Tensor, "t n 3 h w"], texts: Sequence[str]) -> UInt8[Tensor, "3 gh gw"]:
    """A row of pictures a text, the text above them, on white."""
    _, n, _, height, width = rows.shape
    times = max(1, -(-LEAST_SIDE // min(height, width)))
    rows = rows.repeat_interleave(times, 3).repeat_interleave(times, 4)
    height, width, pad, words = height * times, width * times, 8, 20
    sheet = Image.new("RGB", (pad + n * (width + pad), pad + len(texts) * (words + height + pad)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for r, text in enumerate(texts):
        top = pad + r * (words + height + pad)
        draw.text((pad, top), _fit(draw, text, sheet.width - 2 * pad, font), "black", font)
        for c in range(n):
            tile = Image.fromarray(rows[r, c].permute(1, 2, 0).contiguous().numpy())
            sheet.paste(tile, (pad + c * (width + pad), top + words))
    pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
    return pixels.view(sheet.height, sheet.width, 3).permute(2, 0, 1)


def _check(texts: Sequence[str], path: Path, seeds: int, overwrite: bool) -> None:
    """Raise ServeError, before any work is done, where there is nothing to paint or no place to write it."""
    if not texts or not all(t.strip() for t in texts):
        raise ServeError(
            f'painting must be given texts with words; got {list(texts)!r}. Example: diptych paint RUN "a red circle" '
            "--out red.png"
        )
    if seeds < 1:
        raise ServeError(f"the grid must have at least 1 seed a row; got {seeds}.")
    if path.suffix.lower() != ".png":
        raise ServeError(f"the picture must be a .png file, which loses nothing; got {path}. Name it --out x.png.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ServeError(f"the picture must go to a new place; {path} is there. Name another --out, or --overwrite it.")


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`text` on one line, cut where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
