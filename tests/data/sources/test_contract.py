"""The promises of every source in the folder: stable order, unique keys, restartable, bad rows named."""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.core.config import from_dict, to_dict
from diptych.core.errors import ConfigError
from diptych.core.record import Record
from diptych.data import sources
from diptych.data.pack import PackConfig, pack
from diptych.data.shards import ShardWriter
from diptych.data.sources.source import Reject, Source, SourceConfig, look, open_source
from tests.data import benchmark_files
from tests.data.pictures import png

NAMES = [m.name for m in pkgutil.iter_modules(sources.__path__) if m.name != "source"]
GOOD = 5


def make_folder(root: Path) -> Path:
    for i in range(GOOD):
        (root / f"p{i}.png").write_bytes(png(i))
        (root / f"p{i}.txt").write_text(f"caption {i}\n")
    (root / "p_bad.png").write_bytes(b"")
    (root / "p_bad.txt").write_text("words")
    return root


def make_table(root: Path) -> Path:
    for i in range(GOOD):
        (root / f"p{i}.png").write_bytes(png(i))
    rows = [f'p{i}.png,"caption, {i}"' for i in range(GOOD)] + ["gone.png,lost"]
    (root / "pairs.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return root / "pairs.csv"


def make_parquet(root: Path) -> Path:
    rows = [{"image": {"bytes": png(i), "path": f"p{i}.png"}, "caption": f"caption {i}"} for i in range(GOOD)]
    rows.append({"image": {"bytes": b"nothing", "path": None}, "caption": "bad"})
    pq.write_table(pa.Table.from_pylist(rows), root / "train.parquet")
    return root / "train.parquet"


def make_webdataset(root: Path) -> Path:
    with ShardWriter(root) as writer:
        for i in range(GOOD):
            writer.add(Record.pair(f"p{i}", png(i), "png", (f"caption {i}",)))
        writer.add(Record.pair("bad", b"nothing", "png", ("bad",)))
    return root / "00000.tar"


def make_huggingface(root: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": png(i), "path": None} for i in range(GOOD)] + [{"bytes": b"nothing", "path": None}]
    features = datasets.Features({"image": datasets.Image(decode=False), "caption": datasets.Value("string")})
    captions = [f"caption {i}" for i in range(GOOD)] + ["bad"]
    table = datasets.Dataset.from_dict({"image": images, "caption": captions}, features=features)
    table.save_to_disk(str(root / "saved"))
    return root / "saved"


def make_conversations(root: Path) -> Path:
    for i in range(GOOD):
        (root / f"p{i}.png").write_bytes(png(i))
    rows = [
        {
            "image": f"p{i}.png" if i < GOOD else "gone.png",
            "conversations": [
                {"from": "human", "value": f"<image>\ncaption {i}"},
                {"from": "gpt", "value": f"answer {i}"},
            ],
        }
        for i in range(GOOD + 1)
    ]
    (root / "talks.json").write_text(json.dumps(rows))
    return root / "talks.json"


def make_pages(root: Path) -> Path:
    for i in range(GOOD):
        (root / f"p{i}.png").write_bytes(png(i))
    rows = [
        {"texts": [f"caption {i}", None, "more"], "images": [None, f"p{i}.png" if i < GOOD else "gone.png", None]}
        for i in range(GOOD + 1)
    ]
    (root / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root / "pages.jsonl"


def make_foils(root: Path) -> Path:
    return benchmark_files.sugarcrepe(root, count=GOOD, lost=1)


def make_clip_benchmark(root: Path) -> Path:
    benchmark_files.clip_benchmark(root, "retrieval")
    extra = [("s9.png", png(9)), ("s9.txt", b"caption 9")]
    benchmark_files.tar(root / "test" / "2.tar", *extra, ("bad.png", b"nothing"), ("bad.txt", b"bad"))
    (root / "test" / "nshards.txt").write_text("3")
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": make_folder,
    "table": make_table,
    "parquet": make_parquet,
    "webdataset": make_webdataset,
    "huggingface": make_huggingface,
    "conversations": make_conversations,
    "pages": make_pages,
    "coco": lambda root: benchmark_files.coco(root, count=GOOD, lost=1),
    "vqa": lambda root: benchmark_files.vqa(root, count=GOOD, lost=1),
    "pope": lambda root: benchmark_files.pope(root, count=GOOD, lost=1),
    "winoground": lambda root: benchmark_files.winoground(root, count=GOOD, lost=1),
    "foils": make_foils,
    "clip_benchmark": make_clip_benchmark,
}


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    (tmp_path / "source").mkdir()
    return request.param, MAKERS[request.param](tmp_path / "source")


def test_found_by_exactly_its_own_module(made: tuple[str, Path]) -> None:
    name, path = made
    found = look(path)
    assert [n for n in NAMES if importlib.import_module(f"{sources.__name__}.{n}").recognises(found)] == [name]
    source = open_source(path)
    assert type(source).__module__.endswith(f".{name}")
    assert isinstance(source, Source)
    assert isinstance(source.config, SourceConfig)
    assert from_dict(to_dict(source.config)) == source.config


def test_same_records_each_time_with_unique_keys(made: tuple[str, Path]) -> None:
    source = open_source(made[1])
    first, second = list(source.records()), list(source.records())
    assert first == second == list(open_source(made[1]).records())
    keys = [item.key for item in first]
    assert len(set(keys)) == len(keys) == GOOD + 1
    assert source.count() in (None, GOOD + 1)
    assert all(source.where(key) for key in keys)


def test_a_started_reading_may_be_left(made: tuple[str, Path]) -> None:
    source = open_source(made[1])
    reading = source.records()
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert len(list(source.records())) == GOOD + 1


def test_images_and_captions_arrive_as_they_are(made: tuple[str, Path]) -> None:
    good = [r for r in open_source(made[1]).records() if isinstance(r, Record) and r.first("image").data == png(2)]  # type: ignore[union-attr]
    assert len(good) == 1
    text = good[0].first("text")
    assert text is not None
    assert text.texts[0].replace(",", "") == "caption 2"


def test_pack_keeps_the_good_and_names_the_bad(made: tuple[str, Path], tmp_path: Path) -> None:
    report = pack(open_source(made[1]), tmp_path / "out", PackConfig(jobs=1, vocab_size=300))
    assert (report.seen, report.kept, report.rejected) == (GOOD + 1, GOOD, 1)
    row = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()[0]
    assert row["reason"] in ("empty", "file_not_found", "not_an_image")
    assert row["where"]
    assert row["message"].endswith(".")


def test_too_large_a_file_is_rejected_by_name(made: tuple[str, Path]) -> None:
    source = open_source(made[1])
    source.max_bytes = 50
    large = [r for r in source.records() if isinstance(r, Reject) and r.reason == "too_many_bytes"]
    assert len(large) == GOOD


def test_an_option_that_it_does_not_have_is_an_error(made: tuple[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no_such_option, which would have no effect"):
        open_source(made[1], no_such_option=1)
