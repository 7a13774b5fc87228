"""Pictures whose class is a level of blue, and small differentiable models that read it here or there."""

import torch
from torch import Tensor

from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.decode import encode_png
from diptych.models.embedder import Embedder
from diptych.models.model import ModelConfig
from diptych.models.pretrained import Pretrained
from tests.evals.fakes import FakeSplit, FakeTokenizer

SIDE = 16
LEVELS = (64, 106, 148, 190)
"""The blue of each class: far enough from each other and from both ends for the mean of noisy pixels to tell them."""
GAP = LEVELS[1] - LEVELS[0]


class _Config(ModelConfig):
    max_logit_scale: float = 100.0


class ReadsBlue(Embedder):
    """Says which class's level the blue of the picture is nearest to: its mean, or that of its first pixel alone.
    `perfect` False: it reads a hash of red and green, which tells nothing."""

    def __init__(self, where: str = "mean", perfect: bool = True) -> None:
        super().__init__(_Config(image_format=ImageFormat(resolution=SIDE)), 0)
        self.log_logit_scale = torch.nn.Parameter(torch.tensor(3.0))
        self.where, self.perfect = where, perfect

    def decay_free(self) -> set[str]:
        return set()

    def encode_image(self, images: Tensor) -> Tensor:
        blue = images.float()[:, 2].flatten(1)
        value = blue.mean(1) if self.where == "mean" else blue[:, 0]
        if not self.perfect:  # names by red and green, too far apart for any attack to change them
            tens, twenties = (
                ((images.float()[:, :2].mean((2, 3)) - 5) / torch.tensor([10, 20])).round().long().unbind(1)
            )
            names = [fold("blue", *n) for n in zip(tens.tolist(), twenties.tolist(), strict=True)]
            value = torch.tensor([float(LEVELS[n % len(LEVELS)]) for n in names]) + 0 * value
        near = -(((value[:, None] - torch.tensor(LEVELS)) / GAP) ** 2) * 4
        return torch.nn.functional.normalize(near.softmax(1), dim=1)

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.eye(len(LEVELS))[tokens[:, 0].clamp(max=len(LEVELS) - 1)]


def blues(n: int, captions: bool = False) -> FakeSplit:
    """`n` plain pictures in turn of each class: its level of blue, and a red and a green that name the picture."""
    images = []
    for i in range(n):
        colour = torch.tensor([10 * (i % 25) + 5, 20 * (i // 25 % 12) + 5, LEVELS[i % len(LEVELS)]], dtype=torch.uint8)
        images.append(encode_png(colour.view(3, 1, 1).expand(3, SIDE, SIDE).contiguous()))
    labels = [{} if captions else {"label": f"kind_{i % len(LEVELS)}"} for i in range(n)]
    return FakeSplit(images, [(f"kind {i % len(LEVELS)}",) for i in range(n)], labels)


def model(where: str = "mean", perfect: bool = True) -> Pretrained:
    """A loaded one."""
    return Pretrained(ReadsBlue(where, perfect), FakeTokenizer(), fingerprint="f" * 8)
