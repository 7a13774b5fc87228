"""Packing: kept + rejected = seen, whatever comes."""

import errno
import hashlib
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data import pack as module
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords, Reject, open_source
from diptych.data.summary import summarise
from tests.data import tiny_pages
from tests.data.pictures import BROKEN, animated, encode, jpg, pixels, png

QUICK = PackConfig(jobs=1, vocab_size=300, val=0.0)


def pairs(n: int, start: int = 0) -> Iterator[Record]:
    for i in range(start, start + n):
        yield Record.pair(f"k{i}", png(i), "png", (f"caption {i}",))


def rejected(out: Path) -> list[dict[str, object]]:
    return pq.read_table(out / "rejected.parquet").to_pylist()


def torture(good: int, bad: int) -> tuple[FromRecords, dict[str, str]]:
    """`good` images of every odd but sound form with `bad` broken ones mixed in, and the reason each must get."""
    makers = [
        lambda i: png(i),
        lambda i: jpg(i),
        lambda i: encode(pixels(i), "WEBP"),
        lambda i: encode(pixels(i), "TIFF"),
        lambda i: encode(pixels(i), "BMP"),
        lambda i: animated("GIF") if i == 5 else encode(pixels(i), "GIF"),
        lambda i: encode(pixels(i)[..., 0].astype("uint16") * 257 + i % 99, "PNG"),
    ]
    kinds = list(BROKEN.items())
    reasons = {f"bad/{i:05d}": kinds[i % len(kinds)][1][0] for i in range(bad)}
    every = (good + bad) // bad

    def make() -> Iterator[Record]:
        done = 0
        for n in range(good + bad):
            if n % every == every // 2 and done < bad:
                yield Record.pair(f"bad/{done:05d}", kinds[done % len(kinds)][1][1](done), "jpg", (f"bad {done}",))
                done += 1
            else:
                i = n - done
                yield Record.pair(f"good/{i:05d}", makers[i % 7](i), "jpg", (f"good number {i}",))

    return FromRecords(make, "torture"), reasons


def check_torture(out: Path, good: int, bad: int, config: PackConfig) -> None:
    source, reasons = torture(good, bad)
    report = pack(source, out, config)
    assert (report.seen, report.kept, report.rejected) == (good + bad, good, bad)
    assert {r["key"]: r["reason"] for r in rejected(out)} == reasons
    assert Counter(reasons.values()) == report.reasons
    records = pq.read_table(out / "records.parquet").to_pydict()
    assert sorted(records["key"]) == [f"good/{i:05d}" for i in range(good)]
    assert set(records["format"]) == {"jpg", "png", "webp"}
    data = Dataset.open(out)
    for split in data.splits.values():
        for i in range(0, len(split), 7):
            width, height = split.image_size(i)
            assert decode_image(split.image_bytes(i)).shape == (3, height, width)


def test_torture(tmp_path: Path) -> None:
    assert len(BROKEN) >= 12
    check_torture(tmp_path / "out", 940, 60, PackConfig(jobs=1, vocab_size=400, val=0.05, records_per_shard=200))


@pytest.mark.slow
def test_torture_of_ten_thousand_in_two_processes(tmp_path: Path) -> None:
    check_torture(tmp_path / "out", 9700, 300, PackConfig(jobs=2, vocab_size=1000, val=0.02))


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    def digest(out: Path) -> dict[str, str]:
        files = sorted(p for p in out.rglob("*") if p.is_file())
        return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    config = QUICK.replace(val=0.3, records_per_shard=10)
    for name in ("a", "b"):
        pack(FromRecords(lambda: [*pairs(40), Reject("x", "no.")]), tmp_path / name, config)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert "train/00001.index.npz" in digest(tmp_path / "a")


def test_equal_images_never_straddle_splits(tmp_path: Path) -> None:
    records = [Record.pair(f"k{i}", png(i % 50), "png", (f"caption {i}",)) for i in range(200)]
    report = pack(FromRecords(lambda: records), tmp_path / "o", QUICK.replace(val=0.4))
    assert set(report.splits) == {"train", "val"}
    data = Dataset.open(tmp_path / "o")
    assert not set(data.splits["train"].image_ids()) & set(data.splits["val"].image_ids())
    assert 0.2 < report.splits["val"] / 200 < 0.6
    other = pack(FromRecords(lambda: records[::-1]), tmp_path / "p", QUICK.replace(val=0.4))
    assert other.splits == report.splits  # by content, not by place


def test_declared_splits_are_kept(tmp_path: Path) -> None:
    names = ["train", "validation", "TEST", "restval", "nonsense"]
    records = [Record.pair(f"k{i}", png(i), "png", ("c",), meta={"split": n}) for i, n in enumerate(names)]
    report = pack(FromRecords(lambda: records), tmp_path / "o", QUICK.replace(val=0.9))
    assert report.splits == {"train": 2, "val": 1, "test": 1}
    assert report.reasons == {"unknown_split": 1}
    assert "'nonsense'" in str(rejected(tmp_path / "o")[0]["message"])


def test_duplicates_are_counted_once(tmp_path: Path) -> None:
    records = [*pairs(5), *(Record(f"again/{r.key}", r.segments, {"other": 1}) for r in pairs(5)), *pairs(1, 90)]
    records.append(Record.pair("k90", png(91), "png", ("another",)))
    report = pack(FromRecords(lambda: records), tmp_path / "o", QUICK)
    assert report.reasons == {"duplicate": 5, "duplicate_key": 1}
    assert [r["key"] for r in rejected(tmp_path / "o")] == [*(f"again/k{i}" for i in range(5)), "k90"]


def test_the_tables_tell_everything(tmp_path: Path) -> None:
    out = tmp_path / "o"
    odd = "ph\udcffoto"
    records = [*pairs(3), Record.pair("small", png(9), "png", (" ",)), Reject(odd, "no.", "gone", odd, 7)]
    report = pack(FromRecords(lambda: records, "my pairs"), out, QUICK)
    row = pq.read_table(out / "records.parquet").to_pylist()[1]
    split = Dataset.open(out).splits["train"]
    assert row == {
        "uid": split.uid(1),
        "key": "k1",
        "split": "train",
        "shard": "00000.tar",
        "width": 32,
        "height": 24,
        "format": "png",
        "captions": ["caption 1"],
        "bytes": len(png(1)),
        "image_id": split.image_id(1),
        "images": 1,
        "further_texts": [],
        "synthetic": 0,
    }
    bad = rejected(out)
    assert bad[0] == {
        "key": "small",
        "where": "my pairs: small",
        "reason": "no_caption",
        "message": bad[0]["message"],
        "bytes": len(png(9)),
    }
    assert (bad[1]["key"], bad[1]["bytes"]) == ("ph\\udcffoto", 7)
    info = json.loads((out / "dataset.json").read_text())
    assert (info["seen"], info["kept"], info["rejected"]) == (5, 3, {"gone": 1, "no_caption": 1})
    assert info["splits"]["train"]["shards"] == [{"name": "00000.tar", "records": 3}]
    text = str(report)
    assert "Packed 3 of 5 records" in text
    assert "1 no_caption" in text


def test_resized_once(tmp_path: Path) -> None:
    def make() -> Iterator[Record]:
        yield Record.pair("a", jpg(1, height=200, width=300), "jpg", ("a",))
        yield Record.pair("b", jpg(2, height=20, width=30), "jpg", ("b",))

    report = pack(FromRecords(make), tmp_path / "o", QUICK.replace(resize=100))
    split = Dataset.open(tmp_path / "o").splits["train"]
    assert [split.image_size(i) for i in range(2)] == [(100, 67), (30, 20)]
    assert report.notes == {"resized": 1, "reencoded": 1}


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        pack(FromRecords(lambda: pairs(3)), out, QUICK.replace(overwrite=True))
    assert (out / "thesis.txt").read_text() == "years of work"
    (out / "thesis.txt").unlink()
    pack(FromRecords(lambda: pairs(3)), out, QUICK)
    with pytest.raises(ConfigError, match="pass --overwrite"):
        pack(FromRecords(lambda: pairs(4)), out, QUICK)
    assert pack(FromRecords(lambda: pairs(4)), out, QUICK.replace(overwrite=True)).kept == 4
    with pytest.raises(ConfigError, match="must not hold the source"):
        pack(open_source(out), out, QUICK.replace(overwrite=True))


def test_a_failed_pack_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> Iterator[Record]:
        yield from pairs(3)
        raise DataError("the source broke.")

    with pytest.raises(DataError, match="the source broke"):
        pack(FromRecords(breaks), tmp_path / "o", QUICK)
    assert not list(tmp_path.iterdir())

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.ShardWriter, "add", full)
    with pytest.raises(DataError, match="must have room on its disk"):
        pack(FromRecords(lambda: pairs(3)), tmp_path / "o", QUICK)
    assert not list(tmp_path.iterdir())


def test_nothing_kept_is_an_error_that_shows_the_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 2 none could be kept \(2 not_an_image\). The first: t: a: an image must"):
        pack(FromRecords(lambda: [Record.pair(k, b"junk", "png", ("c",)) for k in "ab"], "t"), tmp_path / "o", QUICK)
    named = tmp_path / "o.rejected.parquet"
    assert pq.read_table(named).to_pydict()["key"] == ["a", "b"]
    named.unlink()
    with pytest.raises(DataError, match="must hold records; got none"):
        pack(FromRecords(list), tmp_path / "o", QUICK)
    assert not list(tmp_path.iterdir())


def test_the_tokenizer_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(FromRecords(lambda: pairs(5)), tmp_path / "a", QUICK.replace(context_length=9))
    first = Dataset.open(tmp_path / "a").tokenizer()
    assert first.context_length == 9
    path = str(tmp_path / "a" / "tokenizer.json")
    pack(FromRecords(lambda: pairs(5, 50)), tmp_path / "b", QUICK.replace(tokenizer=path))
    assert Dataset.open(tmp_path / "b").tokenizer().encode("caption 3").ids == first.encode("caption 3").ids
    pack(FromRecords(lambda: pairs(5)), tmp_path / "c", QUICK.replace(tokenizer="none"))
    assert not (tmp_path / "c" / "tokenizer.json").exists()
    heard: list[str] = []
    train = module.Tokenizer.train

    def listen(captions: Iterator[str], *rest: int) -> object:
        heard.extend(captions)
        return train(heard, *rest)

    monkeypatch.setattr(module.Tokenizer, "train", listen)
    records = [
        Record.pair(f"k{i}", png(i), "png", (f"c{i}",), meta={"split": "test" if i < 2 else "train"}) for i in range(12)
    ]
    pack(FromRecords(lambda: records), tmp_path / "d", QUICK.replace(tokenizer_captions=4))
    assert heard == ["c2", "c5", "c8", "c11"]  # train only, evenly spread


def test_records_of_any_number_of_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    train = module.Tokenizer.train

    def listen(captions: Iterator[str], *rest: int) -> object:
        heard.extend(captions)
        return train(heard, *rest)

    monkeypatch.setattr(module.Tokenizer, "train", listen)
    pack(FromRecords(lambda: tiny_pages.RECORDS), tmp_path / "o", QUICK)
    assert sorted(heard) == sorted(
        t for r in tiny_pages.RECORDS for s in r.segments if s.modality == "text" for t in s.texts
    )
    rows = {r["key"]: r for r in pq.read_table(tmp_path / "o" / "records.parquet").to_pylist()}
    assert rows["talk3"]["captions"] == ["look at"]
    assert rows["talk3"]["further_texts"] == ["what is it", "number 7", "and its number", "seven"]
    assert {k: r["images"] for k, r in rows.items()} == {
        r.key: sum(s.modality == "image" for s in r.segments) for r in tiny_pages.RECORDS
    }
    assert (rows["alone6"]["width"], rows["alone6"]["format"]) == (0, "")
    split = Dataset.open(tmp_path / "o").splits["train"]
    assert [split.record(i) for i in range(len(split))] == list(tiny_pages.RECORDS)
    assert summarise(Dataset.open(tmp_path / "o"))["kept"] == len(tiny_pages.RECORDS)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """60 MB of images pass through while far less is ever held."""
    noise = encode(pixels(1, height=400, width=400), "BMP")  # 480 kB, stored as a small PNG

    def make() -> Iterator[Record]:
        for i in range(125):
            yield Record.pair(f"k{i}", noise[:-1] + bytes([i]), "bmp", (f"caption {i}",))

    pack(FromRecords(lambda: pairs(3)), tmp_path / "first", QUICK)  # whatever is imported late is no record's
    tracemalloc.start()
    try:
        report = pack(FromRecords(make), tmp_path / "o", QUICK.replace(tokenizer="none"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.seen == 125
    assert peak < 15e6


@pytest.mark.dist
def test_processes_change_nothing(tmp_path: Path) -> None:
    source, _ = torture(60, 13)
    reports = [pack(source, tmp_path / f"j{jobs}", QUICK.replace(jobs=jobs)) for jobs in (1, 2)]
    assert reports[0].reasons == reports[1].reasons
    for name in ("train/00000.tar", "train/00000.index.npz", "records.parquet", "rejected.parquet", "dataset.json"):
        assert (tmp_path / "j1" / name).read_bytes() == (tmp_path / "j2" / name).read_bytes()


def test_a_tokenizer_that_is_not_there_is_known_before_anything_is_read(tmp_path: Path) -> None:
    def never() -> Iterator[Record]:
        raise AssertionError("it was read")
        yield

    for name in ("Clip", str(tmp_path / "tokenizer.json")):
        with pytest.raises(DataError, match=r"must be a tokenizer.json"):
            pack(FromRecords(never), tmp_path / "out", QUICK.replace(tokenizer=name))
    assert not (tmp_path / "out").exists()


def test_images_only_reaches_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "t.csv").write_text("image\na.png\n")
    report = pack(open_source(tmp_path / "t.csv"), tmp_path / "out", QUICK.replace(images_only=True))
    assert report.kept == 1


def test_places_where_no_dataset_can_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(png(1))
    (source / "a.txt").write_text("a")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="outside the source"):
        pack(open_source(source), source / "packed", QUICK)
    monkeypatch.chdir(empty)
    with pytest.raises(ConfigError, match="the current folder"):
        pack(open_source(source), ".", QUICK)
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "disk")
    with pytest.raises(ConfigError, match=r"--out .*disk/dataset"):
        pack(open_source(source), tmp_path / "disk", QUICK)
    assert pack(open_source(source), tmp_path / "out", QUICK).kept == 1
