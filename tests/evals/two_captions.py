"""Splits of items with right and wrong captions, and a way to ask clip_benchmark of the same vectors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diptych.data.record_files import Pieces, Words
from tests import torchvision_on_cpu
from tests.evals import fakes


def right_and_wrong(n: int, distractors: int = 1, tests: int = 2, same_words: bool = True) -> fakes.FakeSplit:
    """`n` images, each with a caption that holds its number and `distractors` that hold others."""
    meta = [
        {"test": f"test {i % tests}", "distractors": [f"thing {_wrong(i, d, n)}" for d in range(distractors)]}
        for i in range(n)
    ]
    if not same_words:
        for m in meta:
            m["distractors"] = [f"no {text} at all" for text in m["distractors"]]
    return fakes.FakeSplit([fakes.picture(i) for i in range(n)], [(f"thing {i}",) for i in range(n)], meta)


def _wrong(i: int, d: int, n: int) -> int:
    return (i + 7 * (d + 1)) % n


class TwoOfEach(fakes.FakeSplit):
    """Items of two images and two captions each: image, text, image, text."""

    def __init__(self, n: int) -> None:
        super().__init__(
            [fakes.picture(i) for i in range(2 * n)],
            [(f"thing {i}",) for i in range(2 * n)],
            [{"tag": ["Object", "Relation", "Both"][i % 3]} for i in range(n)],
        )

    def __len__(self) -> int:
        return len(self.images) // 2

    def image_bytes(self, i: int, number: int = 0) -> bytes:
        return self.images[2 * i + number]

    def captions(self, i: int) -> tuple[str, ...]:
        return self._captions[2 * i]

    def pieces(self, i: int) -> Pieces:
        return Pieces((Words(self._captions[2 * i]), Words(self._captions[2 * i + 1])), (0, 1))


class _Given(nn.Module):
    """Tokens and pixels that are vectors already."""

    def encode_image(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens


def clip_benchmark_says(images: Tensor, texts: Tensor) -> dict[str, Any]:
    """clip_benchmark's image_caption_selection of vectors (items, images an item, e) and (items, texts an item, e)."""
    torchvision_on_cpu.install()
    from clip_benchmark.metrics.image_caption_selection import evaluate

    rows: dict[str, Tensor] = {}
    names = [[f"{i} {t}" for t in range(texts.shape[1])] for i in range(len(texts))]
    for i, mine in enumerate(names):
        rows |= {name: texts[i, t] for t, name in enumerate(mine)}
    batches = [(images[i : i + 1, :, :, None, None], [names[i]]) for i in range(len(texts))]
    found = evaluate(_Given(), batches, lambda said: torch.stack([rows[t] for t in said]), "cpu", amp=False)
    return {k: float(np.float64(v)) for k, v in found.items()}
