"""Material that is made once: captions of both corpora, photographs of 3000 x 2000 pixels, shards of them at 256.

``python -m benchmarks.make_material captions`` rewrites captions.txt from the corpora. The rest is made when a
benchmark asks for it, into the cache, and is a function of the seed.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.material import CAPTIONS, captions
from diptych.core.files import cache_dir, new_directory
from diptych.core.progress import say
from diptych.core.seeds import fold
from diptych.data.corpora.corpus import get
from diptych.data.dataset import Dataset, Split
from diptych.data.pack import PackConfig, pack
from diptych.data.samples import choose
from diptych.data.sources.source import open_source

CORPORA = ("emoji", "openclipart")
LINES = 4096


def write_captions(path: Path = CAPTIONS, count: int = LINES) -> None:
    """Draw `count` captions from the training splits of both corpora, pooled."""
    splits = [Dataset.open(get(name)).split("train") for name in CORPORA]
    rng = np.random.default_rng(0)
    total = sum(len(s) for s in splits)
    lines = [_caption(splits, int(n), i) for i, n in enumerate(rng.permutation(total)[:count])]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _caption(splits: list[Split], n: int, draw: int) -> str:
    for split in splits:
        if n < len(split):
            texts, weights = split.texts(n)
            return " ".join(texts[choose(fold(0, "benchmark", draw), len(texts), weights)].split())
        n -= len(split)
    raise IndexError(n)


def photo(number: int, width: int = 3000, height: int = 2000) -> Image.Image:
    """A picture with a photograph's statistics: smooth noise in octaves (1/f), sharp shapes, a little grain."""
    rng = np.random.default_rng(number)
    canvas = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 10):
        cells = (max(2, (2**octave * height) // width), 2**octave)
        noise = Image.fromarray(rng.integers(0, 256, (*cells, 3), dtype=np.uint8))
        canvas += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) * 0.75**octave
    canvas -= canvas.min()
    picture = Image.fromarray((canvas * (235 / canvas.max())).astype(np.uint8))
    for _ in range(24):
        side = int(rng.integers(height // 20, height // 4))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        mask = Image.fromarray((_disc(side) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
        at = (int(rng.integers(0, width - side)), int(rng.integers(0, height - side)))
        picture.paste(Image.new("RGB", (side, side), colour), at, mask)
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8))


def _disc(side: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return x * x + y * y < 1


def photos(count: int, width: int = 3000, height: int = 2000) -> Path:
    """A folder of `count` JPEGs (quality 90) with a caption beside each, and photos.csv for open_clip's CsvDataset."""
    folder = cache_dir("benchmarks") / f"photos-{width}x{height}-{count}"
    if not folder.exists():
        say(f"making {count} photographs of {width} x {height} in {folder}")
        words = captions(count)
        with new_directory(folder) as new:
            rows = ["filepath\ttitle"]
            for i in range(count):
                buffer = io.BytesIO()
                photo(i, width, height).save(buffer, "JPEG", quality=90)
                (new / f"{i:05d}.jpg").write_bytes(buffer.getvalue())
                (new / f"{i:05d}.txt").write_text(words[i])
                rows.append(f"{folder / f'{i:05d}.jpg'}\t{words[i]}")
            # each picture many times: an epoch is as long as those of real datasets, and never ends in a turn
            (new / "photos.csv").write_text("\n".join([rows[0], *rows[1:] * 32]) + "\n")
    return folder


def packed_photos(count: int, resize: int = 0, shards: int = 4, width: int = 3000, height: int = 2000) -> Path:
    """The photographs as `diptych pack` packs them: at their size (0), or with the long side at `resize`."""
    source = photos(count, width, height)
    folder = cache_dir("benchmarks") / f"packed-{width}x{height}-{count}-{resize or 'full'}-{shards}"
    if not folder.exists():
        how = PackConfig(
            val=0.0, resize=resize, records_per_shard=-(-count // shards), tokenizer="clip", context_length=77
        )
        say(str(pack(open_source(str(source)), folder, how)))
    return folder


if __name__ == "__main__":
    if sys.argv[1:] != ["captions"]:
        sys.exit("usage: python -m benchmarks.make_material captions")
    write_captions()
