"""A split and models whose right answers are known: each image's colour names its item, each text holds its number.

For models that write, see `tests/evals/fake_writer.py`.
"""

import functools
import re
from typing import Any

import torch
from torch import Tensor, nn

from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.decode import encode_png
from diptych.data.record_files import Pieces, Words
from diptych.data.tokenize import Encoded, Tokenizer, TokenizerConfig
from diptych.models.model import Model, ModelConfig
from diptych.models.pretrained import Pretrained

SIDE = 8


@functools.lru_cache
def picture(number: int, label: int = 0) -> bytes:
    """A PNG of one colour: red and green hold `number`, blue holds `label`."""
    colour = torch.tensor([number // 256, number % 256, label], dtype=torch.uint8)
    return encode_png(colour.view(3, 1, 1).expand(3, SIDE, SIDE).contiguous())


class FakeSplit:
    """The part of data.dataset.Split that evals read, in memory."""

    name = "val"

    def __init__(
        self,
        images: list[bytes],
        captions: list[tuple[str, ...]],
        meta: list[dict[str, Any]] | None = None,
        asked: list[dict[str, str]] | None = None,
    ) -> None:
        self.images, self._captions, self._meta = images, captions, meta or [{} for _ in images]
        self.asked = asked

    def __len__(self) -> int:
        return len(self.images)

    def uid(self, i: int) -> str:
        return f"{i:032x}"

    def captions(self, i: int) -> tuple[str, ...]:
        return self._captions[i]

    def pieces(self, i: int) -> Pieces:
        if self.asked is None:
            return Pieces((Words(self._captions[i]),) if self._captions[i] else (), (0,))
        questions, answers = tuple(self.asked[i]), tuple(self.asked[i].values())
        return Pieces((Words(questions, None, "question", False), Words(answers, None, "answer")), (0,))

    def image_bytes(self, i: int) -> bytes:
        return self.images[i]

    def meta(self, i: int) -> dict[str, Any]:
        return self._meta[i]


def pairs(n: int, captions: int = 1) -> FakeSplit:
    """`n` images, each with `captions` captions that hold its number."""
    return FakeSplit(
        [picture(i) for i in range(n)], [tuple(f"thing {i} view {c}" for c in range(captions)) for i in range(n)]
    )


def labelled(n: int, classes: int) -> FakeSplit:
    """`n` images in turn of each class, whose label is ``kind_<c>``."""
    return FakeSplit(
        [picture(i, i % classes) for i in range(n)],
        [(f"thing {i}",) for i in range(n)],
        [{"label": f"kind_{i % classes}", "class_index": i % classes} for i in range(n)],
    )


def told(n: int, classes: int = 10, captions: int = 2) -> FakeSplit:
    """`n` images with one or two captions each, that have words in common with others of their class."""
    said = [(f"a kind_{i % classes} thing number {i % 7}", f"one thing of kind_{i % classes} here") for i in range(n)]
    return FakeSplit([picture(i, i % classes) for i in range(n)], [texts[:captions] for texts in said])


def asked(n: int, classes: int = 10) -> FakeSplit:
    """`n` images with two questions each: which of `classes` kinds it is, and which number modulo `classes` it has."""
    questions = [
        {"which kind is it": f"kind_{i % classes}", "of what sort": f"kind_{i // 3 % classes}"} for i in range(n)
    ]
    meta = [{"kinds": ["kind", "sort"]} for _ in range(n)]
    return FakeSplit([picture(i, i % classes) for i in range(n)], [() for _ in range(n)], meta, questions)


class FakeTokenizer(Tokenizer):
    """Token ids of a text: its first number, and a hash of the whole."""

    def __init__(self) -> None:
        self.config = TokenizerConfig()

    def encode_all(self, texts: Any) -> list[Encoded]:
        return [Encoded([int(re.findall(r"\d+", t)[0]), sum(map(ord, t)) % 997], False) for t in texts]


class _FakeConfig(ModelConfig):
    pass


class Mute(Model):
    """Can do nothing. `by_label`: texts name an image's label (blue) instead of its number (red and green)."""

    def __init__(self, perfect: bool, by_label: bool = False) -> None:
        super().__init__(_FakeConfig(image_format=ImageFormat(resolution=SIDE)), 0)
        self.log_logit_scale = nn.Parameter(torch.tensor(3.0))
        self.perfect, self.by_label = perfect, by_label

    def _vectors(self, numbers: Tensor, what: str) -> Tensor:
        rows = []
        for n in numbers.tolist():
            seed = n if self.perfect else fold(what, n)
            rows.append(torch.randn(32, generator=torch.Generator().manual_seed(seed)))
        return nn.functional.normalize(torch.stack(rows), dim=1)

    def decay_free(self) -> set[str]:
        return set()

    def _of_images(self, images: Tensor) -> Tensor:
        red, green, blue = images[:, :, 0, 0].long().unbind(1)
        number = blue if self.by_label and self.perfect else red * 256 + green + 70_000 * blue * (not self.perfect)
        return self._vectors(number, "image")

    def _of_texts(self, tokens: Tensor) -> Tensor:
        return self._vectors(tokens[:, 0] if self.perfect else tokens[:, 0] * 1000 + tokens[:, 1], "text")


class Embeds(Mute):
    """Embeds both sides: alike if they mean the same (`perfect`), else at random."""

    def embed_image(self, images: Tensor) -> Tensor:
        return self._of_images(images)

    def embed_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self._of_texts(tokens)


class Scores(Mute):
    """The same, but it only scores pairs."""

    def score(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self._of_images(images) @ self._of_texts(tokens).T


class Collapsed(Embeds):
    """Says the same of everything."""

    def _vectors(self, numbers: Tensor, what: str) -> Tensor:
        return torch.full((len(numbers), 32), 32**-0.5)


class NotFinite(Embeds):
    """Returns NaN for one item."""

    def _vectors(self, numbers: Tensor, what: str) -> Tensor:
        vectors = super()._vectors(numbers, what)
        vectors[numbers == 3] = float("nan")
        return vectors


def model(kind: type[Mute] = Embeds, perfect: bool = True, by_label: bool = False) -> Pretrained:
    """A loaded fake."""
    return Pretrained(kind(perfect, by_label), FakeTokenizer(), fingerprint="f" * 8)
