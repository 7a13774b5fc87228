"""Handwritten digits: the 1,797 scans of 8 x 8 pixels that scikit-learn carries. Needs no network.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import io
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from diptych.core.errors import FetchError
from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.sources.source import Reject

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("a handwritten {}.", "the digit {}.", "a scan of the number {}.", "{}")


class DigitsConfig(CorpusConfig):
    """`scale` is how many pixels of the stored picture's side one scanned pixel takes; repeated, never smoothed."""

    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    scale: int = Field(default=4, ge=1, le=32)

    def build(self) -> "Digits":
        """The corpus."""
        return Digits(self)


class Digits(Corpus):
    """Records keyed by their place in scikit-learn's set; dark ink on white paper; meta holds label and class_index."""

    config: DigitsConfig
    summary: ClassVar[str] = "1.8 k handwritten digits, 8 x 8 pixels, ten classes"
    origin: ClassVar[str] = "scikit-learn's load_digits (UCI Optical Recognition of Handwritten Digits)"
    licence: ClassVar[str] = "CC-BY-4.0"
    size: ClassVar[str] = "1.8 k pictures, nothing to fetch, 1 MB packed"
    version: ClassVar[str] = "1"

    def classes(self) -> tuple[str, ...]:
        """zero to nine."""
        return NAMES

    def templates(self) -> tuple[str, ...]:
        """How the classes are put into words."""
        return TEMPLATES

    def records(self) -> Iterator[Record | Reject]:
        """The scans in scikit-learn's order; the test split is drawn by a hash of that place."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise FetchError(
                "digits must be read from scikit-learn; got a Python without it. "
                "Install it (pip install 'diptych[digits]'), or use scenes, which needs nothing."
            ) from None
        found = load_digits()
        for i, (scan, target) in enumerate(zip(found.images, found.target, strict=True)):
            index = int(target)
            meta = {
                "split": "test" if fold("digits-test", i) % 1_000_000 < self.config.test * 1_000_000 else "train",
                "label": NAMES[index],
                "class_index": index,
            }
            captions = tuple(t.format(NAMES[index]) for t in TEMPLATES)
            yield Record.pair(f"{i:04d}", self._png(scan), "png", captions, meta=meta)

    def _png(self, scan: np.ndarray) -> bytes:
        """Ink counts of 0 to 16 as grey levels, inverted: the scanner's zero is paper, and paper is white."""
        ink = np.clip(np.rint(scan * (255 / 16)), 0, 255).astype(np.uint8)
        large = np.repeat(np.repeat(255 - ink, self.config.scale, axis=0), self.config.scale, axis=1)
        out = io.BytesIO()
        Image.fromarray(large, mode="L").save(out, format="PNG")
        return out.getvalue()
