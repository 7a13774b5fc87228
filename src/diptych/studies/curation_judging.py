"""What the study of curation judges on: held-out images that no record of the raw pool is a copy of.

A raw pool may hold copies of what is tested on, and a curated one not: whoever has learned a test image by heart would
win by it. So those are left out, by the bytes and by the picture saved anew (`data/near_copies.py`), for all alike. Of
held-out images that look alike the first one is judged on: a hundred of one series would count as one many times over.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from diptych.core.errors import ConfigError
from diptych.core.files import write_json
from diptych.data.dataset import Dataset, Split
from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.near_copies import find_copies, read_sketches
from diptych.data.selection import Selection
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.pretrained import Pretrained
from diptych.studies.look_alikes import like_an_earlier

WAYS = {"i2t": "images", "t2i": "captions"}
"""What asks, by direction: the names of `evals/retrieval.py`."""
KS = (1, 5)
METRICS = tuple(f"{way}_recall_at_{k}" for way in WAYS for k in KS)


def judged_uids(data: Dataset, split: str) -> dict[str, Any]:
    """``uids`` of the records of `split` that are judged on; how many ``of`` it, how many are ``copies`` of a training
    image or else of a held-out one before them (``alike``), and how many have no image that can be read, or no caption
    (``unfit``)."""
    held, train = data.split(split), data.split("train")
    places = [i for i in range(len(held)) if held.image_size(i) != (0, 0) and held.captions(i)]
    theirs = [i for i in range(len(train)) if train.image_size(i) != (0, 0)]
    sketches, near = read_sketches(held, places)[0], DecontaminateConfig()
    copies = find_copies(sketches, read_sketches(train, theirs)[0], near.most_bits, near.tolerance).near
    alike = like_an_earlier(sketches) & ~copies
    kept = np.array(sketches.places)[~copies & ~alike].tolist()
    if len(kept) < 2:
        raise ConfigError(
            f"split must hold at least 2 captioned images that no training image is a copy of; {held.name} of "
            f"{data.path} has {len(kept)} of {len(held):,}, and {int(copies.sum()):,} are copies. Judge on another."
        )
    unfit = len(held) - len(sketches.places)
    return {
        "split": split,
        "of": len(held),
        "copies": int(copies.sum()),
        "alike": int(alike.sum()),
        "unfit": unfit,
        "uids": [held.uid(place) for place in kept],
    }


def judged_once(data: Dataset, split: str, path: Path) -> dict[str, Any]:
    """`judged_uids`, found once and kept in the file `path`."""
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        if found.get("fingerprint") == data.fingerprint and found["split"] == split and "alike" in found:
            return found
    found = {"fingerprint": data.fingerprint, **judged_uids(data, split)}
    write_json(path, found)
    return found


def judge(model: Pretrained, held: Split, uids: list[str], max_items: int = 0) -> dict[str, Any]:
    """The retrieval of `METRICS` on those records, as JSON values: by direction the keys of the items, which of them
    belong together, their hits by metric, and the level of guessing.

    As `diptych eval` has it: the first caption as it stands in the data; any image with the asked caption or bytes is
    right, and copies are one in the intervals.
    """
    config = RetrievalConfig(k=KS, captions="first", pictures=0, similarity=0, max_items=max_items)
    found = config.build().run(model, held.selected(Selection.of(uids)), artifacts=True)
    ways: dict[str, Any] = {}
    for way, of in WAYS.items():
        table = found.items[of]
        clusters = np.arange(len(table.keys)) if table.clusters is None else table.clusters
        hits = {m: table.values[m].astype(int).tolist() for m in METRICS if m.startswith(way)}
        ways[way] = {"keys": list(table.keys), "clusters": clusters.tolist(), "hits": hits}
    return {"ways": ways, "chance": {m: found.metrics[m].chance for m in METRICS}}
