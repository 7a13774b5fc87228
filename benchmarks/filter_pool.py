"""A packed corpus laid out as the peers of `filter_rates` read it: a folder of pictures, and a line for each text."""

import json
from pathlib import Path

from diptych.core.files import cache_dir, new_directory
from diptych.core.progress import say
from diptych.data.candidates import CandidatePool


def exported(pool: CandidatePool) -> Path:
    """The folder: ``images/00000000.png`` with the stored bytes of each record, by its number in the pool, and
    texts.jsonl with each one's first caption."""
    folder = cache_dir("benchmarks") / f"pool-{pool.dataset.fingerprint}-{'-'.join(pool.splits)}"
    if folder.exists():
        return folder
    say(f"laying {pool.path} out in {folder}")
    with new_directory(folder) as new:
        (new / "images").mkdir()
        number = 0
        with (new / "texts.jsonl").open("w", encoding="utf-8") as texts:
            for shard in pool.shards:
                rows = pool.rows(shard)
                formats = rows.table["format"].to_pylist()
                for i, text in enumerate(rows.texts):
                    if formats[i]:
                        (new / "images" / f"{number:08d}.{formats[i]}").write_bytes(rows.image(i))
                    texts.write(json.dumps({"text": text}) + "\n")
                    number += 1
    return folder
