"""Text-to-image recall at 1 from embeddings, the same for whoever made them, and what follows from two curves of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diptych.data.dataset import Split
from diptych.evals.ranking import Matches, ranks
from diptych.evals.scoring import EmbeddedItems
from diptych.evals.statistics import paired_difference, share_estimate


@dataclass(frozen=True)
class Judged:
    """An evaluation on the way: when it was, whether each caption found its picture, and which belong together."""

    samples: int
    seconds: float
    hits: np.ndarray
    clusters: np.ndarray

    @property
    def recall(self) -> float:
        """Share of captions whose picture came first."""
        return float(self.hits.mean())

    @property
    def described(self) -> str:
        """Recall with its 95 % bootstrap interval, in per cent."""
        e = share_estimate(self.hits, self.clusters)
        return f"{100 * e.value:.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def judge(split: Split, point: dict[str, Any]) -> Judged:
    """Rank all pictures of `split` for each first caption, as `diptych eval --task retrieval captions=first` does."""
    with np.load(Path(point["file"]), allow_pickle=False) as file:
        keys = [split.key(i) for i in range(len(split))]
        if file["keys"].tolist() != keys:
            raise ValueError(f"{point['file']} must hold the records of {split.name} in their order")
        image, text = (torch.from_numpy(file[k]).float() for k in ("image", "text"))
    places = range(len(split))
    matches = Matches.of([split.image_bytes(i) for i in places], [split.captions(i)[:1] for i in places])
    items = EmbeddedItems(image[matches.first_image], text[matches.first_text])
    found = ranks(items.rows, items.pairs(matches), matches)
    image_of, text_of = matches.image_of.numpy(), matches.text_of.numpy()
    by_image = len(matches.first_image) <= len(matches.first_text)
    clusters = image_of[matches.owner.numpy()] if by_image else text_of
    return Judged(point["samples"], point["seconds"], (found.t2i.numpy()[text_of] <= 1).astype(float), clusters)


def reached(curve: list[Judged], recall: float) -> float | None:
    """Seconds at the first evaluation that shows at least `recall`; None if none does."""
    return next((j.seconds for j in curve if j.recall >= recall), None)


def at_time(curve: list[Judged], seconds: float) -> Judged | None:
    """The last evaluation that was done by then."""
    done = [j for j in curve if j.seconds <= seconds]
    return done[-1] if done else None


def difference(ours: Judged, theirs: Judged) -> str:
    """Points of recall that ours is ahead, with the paired bootstrap's 95 % interval."""
    test = paired_difference(ours.hits, theirs.hits, ours.clusters)
    return f"{100 * test.difference:+.1f} points [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
