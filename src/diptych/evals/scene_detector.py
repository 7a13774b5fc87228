"""A small detector of generated scenes: from pixels back to what was drawn, in the words of the scenes corpus.

A network marks the centre of each object on a grid and says there what it is (Zhou, Wang and Krähenbühl, "Objects as
points", arXiv:1904.07850: the heat map, its focal loss and the peaks). What it reads has the form of a scene's meta, so
that `scene_facts.judge` holds a caption against it. It learns from pictures of which all is known, and from nothing of
the model that it is to judge.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from diptych.data.corpora.scenes import relations_of
from diptych.data.drawing import BACKGROUNDS, COLOURS, SHAPES
from diptych.data.scene_words import Thing
from diptych.evals.scene_facts import SIZES

SIDE, CELLS = 64, 16
"""Pictures of any size are brought to this side; centres are marked on a grid of so many cells a side."""

KINDS = (*SHAPES, "word")
FIELDS = ("shape", "colour", "size", "word")
"""What is said of an object; size of shapes only, word of words only."""

PEAK = 0.4
"""How sure a centre must be."""

SPREAD = 0.8
"""Cells by which the target of a centre spreads (the deviation of a Gaussian)."""


class Maps(NamedTuple):
    """What the network says of every cell: whether a centre lies there (logit), where in the cell, and what it is."""

    centre: Float[Tensor, "b g g"]
    place: Float[Tensor, "b 2 g g"]
    said: dict[str, Float[Tensor, "b k g g"]]
    background: Float[Tensor, "b k"]


class Truth(NamedTuple):
    """The objects of some scenes, one after the other: of which scene each is, its centre (0..1), and by field the
    number of what it is, -1 where nothing is to be said."""

    scene: Int64[Tensor, " o"]
    centre: Float[Tensor, "o 2"]
    said: dict[str, Int64[Tensor, " o"]]
    background: Int64[Tensor, " b"]


class SceneDetector(nn.Module):
    """Reads scenes. `words`: those that it can tell apart."""

    def __init__(self, words: Sequence[str], width: int = 48) -> None:
        super().__init__()
        self.names: dict[str, tuple[str, ...]] = {
            "shape": KINDS,
            "colour": tuple(COLOURS),
            "size": SIZES,
            "word": tuple(words) or ("",),
        }
        self.stem = nn.Sequential(_convolution(3, width // 2, 2), _convolution(width // 2, width, 2))
        self.rest = nn.ModuleList(_convolution(width, width, 1, dilation) for dilation in (1, 2, 1, 2))
        self.head = nn.Conv2d(width, 3 + sum(len(self.names[f]) for f in FIELDS), 1)
        self.background = nn.Linear(width, len(BACKGROUNDS))

    def forward(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Maps:
        """`images`: 0..255, of any size."""
        x = images.float() / 127.5 - 1
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        x = self.stem(x)
        for layer in self.rest:
            x = x + layer(x)
        sizes = [1, 2, *(len(self.names[f]) for f in FIELDS)]
        centre, place, *said = self.head(x).split(sizes, 1)
        return Maps(
            centre[:, 0], place.sigmoid(), dict(zip(FIELDS, said, strict=True)), self.background(x.mean((2, 3)))
        )

    @torch.no_grad()
    def read(self, images: UInt8[Tensor, "n 3 h w"], batch_size: int = 64) -> list[dict[str, Any]]:
        """What is seen on each picture: objects, relations and background, as in a scene's meta. Boxes are in
        thousandths of the side, and say where an object is, not how large."""
        self.eval()
        device = self.head.weight.device
        return [scene for part in images.split(batch_size) for scene in self._read(self(part.to(device)))]

    def truth(self, metas: Sequence[Mapping[str, Any]], sides: Sequence[int]) -> Truth:
        """What is known of scenes; `sides`: of the pictures in whose pixels their boxes are."""
        scenes, centres = list[int](), list[tuple[float, float]]()
        said: dict[str, list[int]] = {f: [] for f in FIELDS}
        for n, (meta, side) in enumerate(zip(metas, sides, strict=True)):
            for thing in meta["objects"]:
                for left, top, right, bottom in thing["boxes"]:
                    scenes.append(n)
                    centres.append(((left + right) / 2 / side, (top + bottom) / 2 / side))
                    for field in FIELDS:
                        name = str(thing[field])
                        said[field].append(self.names[field].index(name) if name in self.names[field] else -1)
        if set(self.names["word"]) == {""}:
            said["word"] = [-1] * len(scenes)
        return Truth(
            torch.tensor(scenes, dtype=torch.int64),
            torch.tensor(centres, dtype=torch.float32).view(-1, 2).clamp(0, 1 - 1e-6),
            {field: torch.tensor(values, dtype=torch.int64) for field, values in said.items()},
            torch.tensor([list(BACKGROUNDS).index(m["background"]) for m in metas]),
        )

    def _read(self, maps: Maps) -> list[dict[str, Any]]:
        heat = maps.centre.sigmoid()
        peaks = (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat >= PEAK)
        best = {field: maps.said[field].argmax(1) for field in FIELDS}
        backgrounds = maps.background.argmax(1).tolist()
        found: list[dict[tuple[str, ...], list[tuple[int, int, int, int]]]] = [{} for _ in backgrounds]
        sizes: list[dict[tuple[str, ...], list[str]]] = [{} for _ in backgrounds]
        for scene, row, column in peaks.nonzero().tolist():
            names = {f: self.names[f][int(best[f][scene, row, column])] for f in FIELDS}
            word = names["word"] if names["shape"] == "word" else ""
            key = (names["shape"], names["colour"], word)
            across, down = maps.place[scene, :, row, column].tolist()
            x, y = (round(1000 * (a + b) / CELLS) for a, b in ((column, across), (row, down)))
            found[scene].setdefault(key, []).append((x - 1, y - 1, x + 1, y + 1))
            sizes[scene].setdefault(key, []).append("" if word else names["size"])
        return [_scene(list(BACKGROUNDS)[b], f, s) for b, f, s in zip(backgrounds, found, sizes, strict=True)]


def detection_loss(maps: Maps, truth: Truth) -> Float[Tensor, ""]:
    """The focal loss of the centres (eq. 1 of the paper, an object), and of each object's place and names."""
    grid = (truth.centre * CELLS).long()
    column, row = grid.unbind(1)
    cells = torch.arange(CELLS, device=row.device)
    near = [torch.exp(-((cells - where[:, None]) ** 2) / (2 * SPREAD**2)) for where in (row, column)]
    bumps = near[0][:, :, None] * near[1][:, None]  # (o, g, g)
    target = torch.zeros_like(maps.centre, dtype=torch.float32)
    target = target.scatter_reduce(0, truth.scene[:, None, None].expand_as(bumps), bumps, "amax")
    logits, objects = maps.centre.float(), max(1, len(row))
    p = logits.sigmoid()
    here = -((1 - p) ** 2) * F.logsigmoid(logits)
    away = -((1 - target) ** 4) * p**2 * F.logsigmoid(-logits)
    loss = torch.where(target == 1, here, away).sum() / objects
    at = (truth.scene, slice(None), row, column)
    loss = loss + F.l1_loss(maps.place[at].float(), truth.centre * CELLS - grid, reduction="sum") / objects
    for field, names in truth.said.items():
        of = F.cross_entropy(maps.said[field][at].float(), names, ignore_index=-1, reduction="sum")
        loss = loss + of / (names >= 0).sum().clamp_min(1)
    return loss + F.cross_entropy(maps.background.float(), truth.background)


def _scene(
    background: str,
    found: Mapping[tuple[str, ...], list[tuple[int, int, int, int]]],
    sizes: Mapping[tuple[str, ...], list[str]],
) -> dict[str, Any]:
    things = [
        Thing(shape, colour, max(sizes[key], key=sizes[key].count), tuple(boxes), word)
        for key, boxes in found.items()
        for shape, colour, word in [key]
    ]
    objects = [
        {"shape": t.shape, "colour": t.colour, "size": t.size, "word": t.word, "boxes": [list(b) for b in t.boxes]}
        for t in things
    ]
    return {"objects": objects, "relations": [list(r) for r in relations_of(things)], "background": background}


def _convolution(inner: int, outer: int, stride: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))
