"""Pictures with squares of some colours, and models whose last map shows where each is, or elsewhere."""

import numpy as np
import torch
from torch import Tensor, nn

from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.decode import encode_png
from diptych.models.embedder import Embedder
from diptych.models.model import ModelConfig
from diptych.models.pretrained import Pretrained
from tests.evals.fakes import FakeSplit, FakeTokenizer

SIDE = 32
COLOURS = ((250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20), (20, 250, 250))
BACKGROUND = (120, 120, 120)


class _Config(ModelConfig):
    max_logit_scale: float = 100.0


class Places(nn.Module):
    """For each colour a channel: where it is (b c s s). `moved`: rolled somewhere else, by a hash of the picture."""

    def __init__(self, moved: bool) -> None:
        super().__init__()
        self.moved = moved

    def forward(self, images: Tensor) -> Tensor:
        away = (images[:, None] - torch.tensor(COLOURS).float()[None, :, :, None, None]).abs().sum(2)
        found = (1 - away / 60).relu()
        if not self.moved:
            return found
        sums = (images * torch.arange(SIDE)[:, None] + images * torch.arange(SIDE) * 77).flatten(1).sum(1)
        seeds = [fold("place", int(s)) for s in sums.tolist()]
        return torch.stack([f.roll((s % SIDE, s // SIDE % SIDE), (1, 2)) for f, s in zip(found, seeds, strict=True)])


class FindsColours(Embedder):
    """How much there is of each colour; a text asks for the colour of its number, or (`reads` False) for all."""

    def __init__(self, moved: bool = False, reads: bool = True) -> None:
        super().__init__(_Config(image_format=ImageFormat(resolution=SIDE, resize="squash")), 0)
        self.log_logit_scale = nn.Parameter(torch.tensor(3.0))
        self.image_tower, self.reads = Places(moved), reads

    def decay_free(self) -> set[str]:
        return set()

    def encode_image(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.image_tower(images.float()).mean((2, 3)) + 1e-4, dim=1)

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        asked = torch.eye(len(COLOURS))[tokens[:, 0] % len(COLOURS)]
        return asked if self.reads else torch.ones_like(asked) / len(COLOURS) ** 0.5


def squares(n: int, each: int = 2, centred: bool = False) -> FakeSplit:
    """`n` pictures with `each` squares of different colours (`centred`: one, in the middle), and their boxes."""
    rng = np.random.default_rng(0)
    images: list[bytes] = []
    meta = []
    while len(images) < n:
        picture = torch.tensor(BACKGROUND, dtype=torch.uint8).view(3, 1, 1).repeat(1, SIDE, SIDE)
        boxes = []
        for i, colour in enumerate(rng.permutation(len(COLOURS))[:each].tolist()):
            side = int(rng.integers(5, 10))
            x = int(rng.integers(0, SIDE // each - side)) + i * SIDE // each
            y = int(rng.integers(0, SIDE - side))
            x, y = (SIDE // 2 - side // 2 - (i + len(images)) % 3, SIDE // 2 - 3) if centred else (x, y)
            picture[:, y : y + side, x : x + side] = torch.tensor(COLOURS[colour], dtype=torch.uint8).view(3, 1, 1)
            boxes.append({"name": f"square {colour}", "box": [x, y, x + side, y + side]})
        if (data := encode_png(picture)) not in images:
            images.append(data)
            meta.append({"boxes": boxes})
    return FakeSplit(images, [(f"picture {i}",) for i in range(n)], meta)


def model(moved: bool = False, reads: bool = True) -> Pretrained:
    """A loaded one."""
    return Pretrained(FindsColours(moved, reads), FakeTokenizer(), fingerprint="f" * 8)
