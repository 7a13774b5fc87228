"""The captions that a model wrote of a split, with what belongs to them; and the same dealt out to wrong images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from diptych.core.seeds import numpy_generator


class Written(NamedTuple):
    """Readable images' places, what people say of each, what the model says, and which images are equal. `blank` is
    what it says of a blank image."""

    places: list[int]
    references: list[tuple[str, ...]]
    captions: list[str]
    clusters: Int64[np.ndarray, " n"]
    blank: str | None


def dealt_out(clusters: Int64[np.ndarray, " n"], deals: int, seed: int) -> list[Int64[np.ndarray, " n"]]:
    """So many ways to give each image what was said of another: index arrays (n,) that never lead to an equal image,
    if no image makes up more than half of all."""
    n, largest = len(clusters), int(np.bincount(clusters).max())
    draws = numpy_generator(seed, "dealt_out")
    ranks = draws.permutation(int(clusters.max()) + 1)
    order = np.argsort(ranks[clusters], kind="stable")  # equal images lie together
    room = np.arange(largest, max(n - largest, largest) + 1)
    found = []
    for shift in draws.permutation(room)[:deals].tolist():
        index = np.empty(n, dtype=np.int64)
        index[order] = np.roll(order, shift)
        found.append(index)
    return found
