"""kill -9 anywhere, the same command again: the same output, byte for byte, and nothing left over.

Every command of the data engine is carried out once undisturbed and then killed before its n-th change to files, for
numbers all over it, some of them twice in a row; and at moments that a seed draws, with two processes at work.
No byte may differ. The long tier.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.checkpoints.native import build, save_pretrained
from diptych.core.record import Record
from diptych.data.candidates import CandidatePool, write_scores
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from diptych.data.vectors import write_vectors
from tests.cli.killing import Command, contents, session
from tests.data.pictures import png
from tests.data.web.hostile import says, serving
from tests.models.small_fusion import small_blip
from tests.studies.tiny_clip import tiny_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1400)]

LINKS = 10
PLACES = max(4, int(os.environ.get("KILLED_PLACES", "6")))
"""Numbers at which a command is killed: its first and last ones, and some between. More: KILLED_PLACES=16, minutes."""
FILTERS = """
[[filter]]
name = "caption_length"
min_words = 2

[[filter]]
name = "exact_duplicates"

[[filter]]
name = "near_duplicates"

[[filter]]
name = "decontaminate"

[[filter]]
name = "semantic_duplicates"
vectors = "given"

[[filter]]
name = "score"
score = "given"
fraction = 0.7
"""


class Place:
    """Where commands work: `work` is made anew from `inputs` for each try, at the same path each time."""

    def __init__(self, folder: Path) -> None:
        self.inputs, self.work, self.scratch = folder / "inputs", folder / "work", folder / "scratch"
        self.port = 0
        records = []
        for i in range(24):
            said = f"a picture {i}" if i % 6 else "thing"
            split = "test" if i >= 20 else "train"
            picture = png({3: 2, 8: 7, 21: 5}.get(i, i), height=16, width=16)  # copies, one of train's in test
            records.append(Record.pair(f"{i:03d}", picture, "png", (said,), meta={"split": split}))
        packing = PackConfig(records_per_shard=5, jobs=1, vocab_size=280, context_length=8)
        pool = self.inputs / "pool"
        pack(FromRecords(lambda: records), pool, packing)
        opened = CandidatePool(pool)
        for shard in opened.shards:  # what a model said
            rows = opened.rows(shard)
            write_scores(opened, "given", rows, np.linspace(0, 1, len(rows)))
            vectors = np.random.default_rng(int(shard.name)).normal(size=(len(rows), 8))
            vectors[0] = 1.0  # alike in every shard
            write_vectors(opened, "given", rows, vectors)
        tokenizer = Dataset.open(pool).tokenizer()
        for name, config in (("embeds", tiny_clip().model), ("writes", small_blip())):
            save_pretrained(self.inputs / name, build(config, tokenizer.vocab_size), tokenizer)
        (self.inputs / "mine.toml").write_text(FILTERS)
        (self.inputs / "pictures").mkdir()
        for i in range(6):
            (self.inputs / "pictures" / f"{i}.png").write_bytes(png(i, height=16, width=16))
        page = "".join(f'<img src="pictures/{i}.png" alt="the picture {i} of a page">' for i in range(6))
        far = '<img src="https://e.example/far.png" alt="far away from here">'
        (self.inputs / "page.html").write_text(f"<html><body>{page}{far}</body></html>")
        (self.inputs / "table.csv").write_text(
            "".join(["image,caption\n", *(f"pictures/{i}.png,a {i}\n" for i in range(6))])
        )

    def anew(self) -> None:
        """The inputs again, and no output."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.inputs, self.work)

    def command(self, *arguments: object) -> Command:
        return Command(arguments, self.work, self.scratch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("killed"))
    pictures = {f"/{i}.png": says(png(i), Content_Type="image/png") for i in range(LINKS)}
    with serving({**pictures, "/robots.txt": says(b"User-agent: *\nDisallow: /9\n")}) as (port, _):
        rows = [f"http://127.0.0.1:{port}/{i}.png,a picture {i}\n" for i in range(LINKS)]
        (made.inputs / "links.csv").write_text("".join(["url,caption\n", *rows]))
        made.port = port
        yield made


def urls(p: Place, jobs: int = 1) -> list[object]:
    own = [f'web.private_hosts=["127.0.0.1:{p.port}"]', "piece=4", "threads=2", "host_interval=0"]
    return ["collect", "urls", p.work / "links.csv", *own, "--out", p.work / "out", "--jobs", jobs]


def curated(p: Place, jobs: int = 1) -> list[object]:
    return ["curate", p.work / "pool", p.work / "mine.toml", "--out", p.work / "out", "--jobs", jobs]


def scored(p: Place, jobs: int = 1) -> list[object]:
    return ["score", p.work / "pool", "--with", p.work / "embeds", "--name", "own", "--jobs", jobs]


def embedded(p: Place, jobs: int = 1) -> list[object]:
    return ["embed", p.work / "pool", "--with", p.work / "embeds", "--name", "own", "--jobs", jobs]


def collected(p: Place) -> list[object]:
    own = [f"links={p.work / 'links.jsonl'}", "rule=cc2dataset", "jobs=1", "tokenizer=none"]
    return ["collect", "html", p.work / "page.html", *own, "--out", p.work / "out"]


def repacked(p: Place) -> list[object]:
    return ["pack", p.work / "table.csv", "jobs=1", "tokenizer=none", "--out", p.work / "pool", "--overwrite"]


def captioned(p: Place) -> list[object]:
    own = ["writing.max_tokens=4", "writing.batch_size=4", "jobs=1"]
    return ["recaption", p.work / "pool", *own, "--with", p.work / "writes", "--out", p.work / "out"]


def combined(p: Place) -> list[object]:
    words = ["top", "0.5", "by", "given", "of", p.work / "pool", "sample", "5", "seed=1"]
    return ["combine", *words, "--out", p.work / "out"]


COMMANDS: dict[str, tuple[Callable[[Place], list[object]], str]] = {
    "collect urls": (urls, ""),
    "curate": (curated, ""),
    "score": (scored, ""),
    "embed": (embedded, ""),
    "collect html": (collected, "is a dataset already"),
    "pack --overwrite": (repacked, ""),
    "recaption": (captioned, "holds something already"),
    "combine": (combined, "holds something"),
}
"""By name: the command, and what it may say where it was killed when all was done (""): nothing but success."""


def chosen(changes: int, seed: int = 0) -> list[int]:
    """The numbers at which to kill."""
    everything = range(1, changes + 1)
    if changes <= PLACES:
        return list(everything)
    ends = {1, 2, *everything[-2:]}
    rest = [n for n in everything if n not in ends]
    return sorted(ends | set(np.random.default_rng(seed).choice(rest, PLACES - len(ends), replace=False).tolist()))


def undisturbed(place: Place, arguments: Sequence[object]) -> tuple[int, dict[str, bytes]]:
    """How many changes a command makes, and all that lies there afterwards."""
    place.anew()
    found = place.command(*arguments).run()
    assert found.code == 0, found.said
    assert found.changes > 0
    return found.changes, contents(place.work)


def compare(found: dict[str, bytes], wanted: dict[str, bytes], where: str) -> None:
    """All files and folders, their bytes."""
    assert sorted(found) == sorted(wanted), f"{where}: other files"
    different = [name for name, data in found.items() if data != wanted[name]]
    assert not different, f"{where}: other bytes in {different}"


def done(place: Place, arguments: Sequence[object], wanted: dict[str, bytes], says: str, where: str) -> None:
    """The command again, to its end; the same is there as if it had never been stopped."""
    found = place.command(*arguments).run()
    if not (found.code == 1 and says and says in found.said):
        assert found.code == 0, f"{where}: {found.said}"
    compare(contents(place.work), wanted, where)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_any_change_and_given_again_it_comes_to_the_same(place: Place, name: str) -> None:
    make, says = COMMANDS[name]
    changes, wanted = undisturbed(place, make(place))
    assert undisturbed(place, make(place)) == (changes, wanted)  # else no number would mean anything
    for number, stop in enumerate(chosen(changes)):
        place.anew()
        where = f"{name}, killed before change {stop} of {changes}"
        assert place.command(*make(place)).run(stop).code == -signal.SIGKILL, where
        if number % 2:  # and once more on its way
            again = place.command(*make(place)).run(max(1, stop // 2))
            where += f" and again ({again.code})"
        done(place, make(place), wanted, says, where)


@pytest.mark.parametrize("make", [urls, curated, scored], ids=["collect urls", "curate", "score"])
def test_killed_at_any_moment_with_two_processes_at_work(place: Place, make: Callable[..., list[object]]) -> None:
    _, wanted = undisturbed(place, make(place))
    started = time.monotonic()
    assert undisturbed(place, make(place, 2))[1] == wanted
    took = time.monotonic() - started
    outputs = len(wanted) - len(contents(place.inputs))
    moments: list[Callable[[], bool]] = []
    for share in np.random.default_rng(1).uniform(0.2, 1.0, 5):
        moments.append(lambda share=share: time.monotonic() - begun > share * took)
    for n in sorted({1, 2, outputs // 2, outputs - 1}):  # as soon as so many files are there
        moments.append(lambda n=n: len(contents_names(place.work)) - len(wanted) + outputs >= n)
    for number, moment in enumerate(moments):
        place.anew()
        begun = time.monotonic()
        ended = place.command(*make(place, 2)).run_until(moment)
        done(place, make(place, 2), wanted, "", f"moment {number} ({ended.code})")


def contents_names(folder: Path) -> list[Path]:
    """What lies below a folder, while others come and go."""
    found: list[Path] = []
    for at, folders, files in os.walk(folder):
        found += [Path(at, name) for name in (*folders, *files)]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_the_process_that_was_killed_alone(place: Place) -> None:
    """The system's memory killer takes one process, not its group."""
    _, wanted = undisturbed(place, curated(place))
    place.anew()
    command = place.command(*curated(place, 2))
    process = command.start()
    until = time.monotonic() + 120
    while process.is_alive() and len(session(process.pid)) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    until = time.monotonic() + 60
    while (left := session(process.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    done(place, curated(place, 2), wanted, "", "its parent killed")


@pytest.mark.parametrize("make", [urls, curated, scored], ids=["collect urls", "curate", "score"])
def test_pool_and_ray_give_the_same_bytes(place: Place, make: Callable[..., list[Any]]) -> None:
    pytest.importorskip("ray")
    _, wanted = undisturbed(place, make(place, 2))
    place.anew()
    line = [sys.executable, "-m", "diptych", *map(str, make(place, 2)), "--engine", "ray"]
    found = subprocess.run(line, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stderr
    compare(contents(place.work), wanted, "ray")
