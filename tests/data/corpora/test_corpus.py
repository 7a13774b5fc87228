import json
import os
from pathlib import Path

import pytest
from sklearn import datasets

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, FetchError
from diptych.core.record import Record
from diptych.data.corpora.corpus import Corpus, corpora, corpus, get
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig
from tests.data.fake_clients import FakeClients

QUICK = PackConfig(val=0.0, jobs=1, tokenizer="none")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", corpora())
def test_every_corpus_keeps_the_contract(name: str) -> None:
    source = corpus(name)
    assert isinstance(source, Corpus)
    assert source.name == name
    for words in (source.summary, source.origin, source.licence, source.size, source.version):
        assert words
    assert from_json(to_json(source.config)) == source.config
    assert bool(source.classes()) == bool(source.templates())
    assert all("{}" in t for t in source.templates())
    assert len(set(source.classes())) == len(source.classes())
    assert len({p.filename for p in source.packages}) == len(source.packages)
    assert source.packing.val == 0.0


def test_which_there_are() -> None:
    known = {"digits", "easy_vqa", "emoji", "fashion_mnist", "openclipart", "openmoji", "scenes", "stamps"}
    assert known <= set(corpora())
    with pytest.raises(ConfigError, match=r"got 'emojis'. Did you mean 'emoji'\?"):
        corpus("emojis")
    with pytest.raises(ConfigError, match="There are: digits"):
        get("zzz")
    with pytest.raises(ConfigError, match=r"Did you mean 'size'\?"):
        corpus("scenes", sizes=3)


def test_a_corpus_is_built_once(capsys: pytest.CaptureFixture[str]) -> None:
    path = get("scenes", packing=QUICK, size=8, resolution=16)
    assert path.parent == Path(os.environ["DIPTYCH_CACHE"]) / "corpora"
    assert "Packed 8 of 8 records" in capsys.readouterr().err
    marks = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    assert get("scenes", packing=QUICK, size=8, resolution=16) == path
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == marks
    assert "is in" in capsys.readouterr().err
    assert get("scenes", packing=QUICK, size=9, resolution=16) != path
    assert sorted(p.name.startswith(".") for p in path.parent.iterdir()) == [False, False]
    about = json.loads((path / "corpus.json").read_text())
    assert (about["corpus"], about["licence"], about["config"]["size"]) == ("scenes", "CC0-1.0", 8)


def test_what_is_packed_is_what_the_source_gave() -> None:
    source = corpus("scenes", size=6, resolution=16)
    packed = Dataset.open(get("scenes", packing=QUICK, size=6, resolution=16))
    found = {r.key: r for s in packed.splits.values() for r in (s.record(i) for i in range(len(s)))}
    for record in source.records():
        assert isinstance(record, Record)
        assert found[record.key].segments == record.segments
        assert found[record.key].meta == record.meta


def test_out_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert get("scenes", out, QUICK, size=3, resolution=16) == out
    assert get("scenes", out, QUICK, size=3, resolution=16) == out
    with pytest.raises(ConfigError, match=r"must be a new folder or this same corpus; got .*out, which holds"):
        get("scenes", out, QUICK, size=4, resolution=16)


def test_a_labelled_corpus_brings_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = datasets.load_digits()
    few.images, few.target = few.images[:80], few.target[:80]
    monkeypatch.setattr(datasets, "load_digits", lambda: few)
    path = get("digits", packing=QUICK)
    assert (path / "classes.txt").read_text().split() == list(corpus("digits").classes())
    assert (path / "templates.txt").read_text().splitlines() == list(corpus("digits").templates())
    test = Dataset.open(path).splits["test"]
    classes = (path / "classes.txt").read_text().split()
    assert all(classes[test.meta(i)["class_index"]] == test.meta(i)["label"] for i in range(len(test)))


def test_a_failed_build_leaves_nothing(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(clients.root / "nothing"))
    with pytest.raises(
        FetchError,
        match=r"emoji must be fetched with npm; .* Without it there are: digits, easy_vqa, openmoji, scene_tests",
    ):
        get("emoji")
    assert not list((Path(os.environ["DIPTYCH_CACHE"]) / "corpora").iterdir())


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    "name, kept, rejected",
    [
        ("emoji", {"train": 5408, "val": 103, "test": 1837}, 7260),
        ("openmoji", {"train": 3614, "val": 122, "test": 217}, 542),
        ("openclipart", {"train": 6331, "val": 199, "test": 343}, 1248),
        ("fashion_mnist", {"train": 60000, "test": 10000}, 0),
        ("easy_vqa", {"train": 3813, "val": 187, "test": 1000}, 0),
        ("stamps", {"train": 736, "val": 28, "test": 180}, 17),
    ],
)
def test_the_real_packages(name: str, kept: dict[str, int], rejected: int) -> None:
    path = get(name)
    dataset = Dataset.open(path)
    assert {s: len(split) for s, split in dataset.splits.items()} == kept
    assert sum(json.loads((path / "dataset.json").read_text())["rejected"].values()) == rejected
    for name_, split in dataset.splits.items():
        if name == "emoji" and name_ == "test":
            first = [split.captions(i)[0] for i in range(len(split))]
            assert len({t.casefold() for t in first}) == len(first) == 1837
