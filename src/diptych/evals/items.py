"""What each item brought, made into the tables by which two models are compared on the same items."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int, Shaped

from diptych.evals.eval import ItemTable


def item_table(
    keys: Iterable[str],
    values: Mapping[str, Shaped[np.ndarray, " n"]],
    clusters: Int[np.ndarray, " n"] | None = None,
) -> ItemTable:
    """A table of items from arrays: by metric a number (or a hit) an item. `clusters` None: no two belong together."""
    held = {name: np.asarray(v) for name, v in values.items()}
    held = {name: v if v.dtype == bool else v.astype(np.float64) for name, v in held.items()}  # of millions, bytes
    return ItemTable(tuple(keys), held, None if clusters is None else np.asarray(clusters, dtype=np.int64))


def numbered(uids: Sequence[str]) -> list[str]:
    """A key an item where many belong to one record: "uid#0", "uid#1", ..., counted in the order in which they come."""
    seen: dict[str, int] = {}
    keys = []
    for uid in uids:
        seen[uid] = seen.get(uid, -1) + 1
        keys.append(f"{uid}#{seen[uid]}")
    return keys
