"""Phrases and where in an image they are: from the meta of records, and onto the pixels that a model sees."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from diptych.core.errors import EvalError
from diptych.data.frame import Frame
from diptych.data.scene_words import Thing, phrase


class Phrase(NamedTuple):
    """What is said, the kind of thing that it names, and the boxes (left, top, right, bottom, in pixels of the image)
    of all that it names."""

    text: str
    kind: str
    boxes: Float64[np.ndarray, "k 4"]


def phrases_of(meta: Mapping[str, Any], uid: str) -> list[Phrase]:
    """The phrases of a record: `boxes`, a list of {name, box}, those of one name together; else a scene's `objects`,
    in the words of its captions without size ("two red circles", "the word MAP in black"). [] where it has neither."""
    try:
        if meta.get("boxes"):
            named: dict[str, list[Any]] = {}
            for entry in meta["boxes"]:
                named.setdefault(str(entry["name"]), []).append(entry["box"])
            return [Phrase(name, name, _checked(boxes)) for name, boxes in named.items()]
        return [_of_thing(thing) for thing in meta.get("objects") or [] if thing["boxes"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EvalError(
            f"boxes must be a list of {{name, box: [left, top, right, bottom]}} in pixels of the image; got a record "
            f"({uid}) whose meta says otherwise ({type(error).__name__}: {error}). Correct it and pack again."
        ) from None


def inside(points: Float64[np.ndarray, "*s 2"], boxes: Float64[np.ndarray, "k 4"], tolerance: float = 0.0) -> Any:
    """Bool[*s]: which points (x, y) lie in any box, its rim included, or at most `tolerance` outside in x and in y."""
    x, y = points[..., 0, None], points[..., 1, None]
    left, top, right, bottom = boxes.T
    t = tolerance
    return ((x >= left - t) & (x <= right + t) & (y >= top - t) & (y <= bottom + t)).any(-1)


class Pointing(NamedTuple):
    """How a map fits the boxes of a phrase.

    hit     the share of the map's maximal pixels that lie in a box: 1 or 0, but where several tie
    energy  the share of all heat that lies in boxes
    iou     of the boxes with the pixels that reach the threshold
    area    the share of the image that boxes cover: what a map without information has of each of the three
    centre  whether the centre of the image lies in a box
    """

    hit: float
    energy: float
    iou: float
    area: float
    centre: float


def pointing(
    heat: Float[np.ndarray, "s s"],
    frame: Frame,
    boxes: Float64[np.ndarray, "k 4"],
    threshold: float = 0.5,
    tolerance: float = 0.0,
) -> Pointing:
    """The pointing game (Zhang et al., 2016), the energy-based one (Wang et al., 2020) and the IoU of a map of the
    square that a model sees; padding is not looked at. `tolerance` (pixels of the image) is of hit, area and centre."""
    x0, y0, x1, y1 = frame.seen()
    centres = frame.centres()[y0:y1, x0:x1]
    part = heat[y0:y1, x0:x1].astype(np.float64)
    near, within = inside(centres, boxes, tolerance), inside(centres, boxes)
    best = part >= part.max() - 1e-6 * (part.max() - part.min())
    total = part.sum()
    hot: Bool[np.ndarray, "h w"] = part >= threshold if total > 0 else np.ones(part.shape, bool)
    union = (hot | within).sum()
    middle = np.array([frame.width / 2, frame.height / 2])
    return Pointing(
        hit=float(near[best].mean()),
        energy=float(part[within].sum() / total) if total > 0 else float(within.mean()),
        iou=float((hot & within).sum() / union) if union else 0.0,
        area=float(near.mean()),
        centre=float(inside(middle, boxes, tolerance)),
    )


def _of_thing(thing: Mapping[str, Any]) -> Phrase:
    boxes = _checked(thing["boxes"])
    some = tuple((0, 0, 0, 0) for _ in boxes)  # how many there are is all that words need to know of places
    known = Thing(thing["shape"], thing["colour"], thing["size"], some, thing["word"])
    return Phrase(phrase(known, size=False), str(thing["shape"]), boxes)


def _checked(boxes: Sequence[Any]) -> Float64[np.ndarray, "k 4"]:
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    if len(found) != len(boxes) or not np.isfinite(found).all() or not (found[:, 2:] >= found[:, :2]).all():
        raise ValueError(f"{boxes!r}")
    return found
