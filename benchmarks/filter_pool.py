"""A packed corpus laid out as the peers of `filter_rates` read it: a folder of pictures, and a line for each text."""

import io
import json
from pathlib import Path

from PIL import Image

from diptych.core.files import cache_dir, new_directory
from diptych.core.progress import say
from diptych.data.candidates import CandidatePool


def exported(pool: CandidatePool) -> Path:
    """The folder: ``images/00000000.png`` with the stored bytes of each record, by its number in the pool, and
    texts.jsonl with each one's first caption. Grey pictures with alpha are written as RGBA, the same pixels:
    cleanvision 0.3.7 ends with an IndexError where it meets one."""
    folder = cache_dir("benchmarks") / f"pool-rgba-{pool.dataset.fingerprint}-{'-'.join(pool.splits)}"
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
                        (new / "images" / f"{number:08d}.{formats[i]}").write_bytes(_readable(rows.image(i)))
                    texts.write(json.dumps({"text": text}) + "\n")
                    number += 1
    return folder


def _readable(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode != "LA":
            return data
        buffer = io.BytesIO()
        image.convert("RGBA").save(buffer, "PNG")
        return buffer.getvalue()
