"""The pool holds what its truth says: each fault is looked up in the records themselves."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from diptych.core.errors import ConfigError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.studies.planted_captions import KINDS
from diptych.studies.planted_copies import WAYS
from diptych.studies.planted_pool import (
    ABOUT,
    FAULTS,
    PlantedPool,
    PlantedPoolConfig,
    build_pool,
    others_words,
    read_truth,
)
from tests.data.pictures import encode, pixels
from tests.studies.planted_data import clean_dataset, clean_records

CONFIG = PlantedPoolConfig(leaked=0.03)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_dataset(tmp_path_factory.mktemp("planted") / "clean")


@pytest.fixture(scope="module")
def pool(base: Path) -> Path:
    return build_pool(base, base.parent / "pool", CONFIG, jobs=1)


def _records(path: Path, split: str) -> dict[str, Record]:
    opened = Dataset.open(path).split(split)
    return {opened.uid(i): opened.record(i) for i in range(len(opened))}


def _parts(record: Record) -> tuple[bytes, tuple[str, ...]]:
    picture, text = record.first("image"), record.first("text")
    assert picture is not None
    assert text is not None
    return picture.data, text.texts


def test_the_shares_are_kept_and_every_record_is_in_the_truth(base: Path, pool: Path) -> None:
    truth = read_truth(pool)
    assert list(truth) == list(_records(pool, "train"))
    counts = Counter(row["fault"] for row in truth.values())
    size = len(truth)
    assert size == round(100 / (1 - 0.2 - 0.03))
    expected = {"mismatched": 0.3, "exact_copy": 0.1, "near_copy": 0.1, "boilerplate": 0.1, "leaked": 0.03}
    for fault in FAULTS:
        assert counts[fault] == pytest.approx(expected[fault] * size, abs=1), fault
    assert counts["clean"] == 100 - counts["mismatched"] - counts["boilerplate"]
    tests = [{uid: _parts(r) for uid, r in _records(path, "test").items()} for path in (pool, base)]
    assert tests[0] == tests[1]


def test_every_fault_is_what_the_truth_says(base: Path, pool: Path) -> None:
    own = {**_records(base, "train"), **_records(base, "test")}
    tests = set(_records(base, "test"))
    truth, records = read_truth(pool), _records(pool, "train")
    clean = {row["picture_of"] for row in truth.values() if row["fault"] == "clean"}
    for uid, row in truth.items():
        data, said = _parts(records[uid])
        picture, words = _parts(own[row["picture_of"]])
        assert (row["picture_of"] in tests) == (row["fault"] == "leaked")
        if row["fault"] in ("clean", "mismatched", "boilerplate") or row["how"] == "equal":
            assert data == picture
        else:
            assert data != picture
            assert row["how"] in WAYS
        if row["fault"] == "clean":
            assert uid == row["picture_of"]
        if row["fault"] == "mismatched":
            assert row["captions_of"] != row["picture_of"]
            assert said == _parts(own[row["captions_of"]])[1]
            assert {t.casefold() for t in said}.isdisjoint(t.casefold() for t in words)
        if row["fault"] == "boilerplate":
            assert row["how"] in KINDS
            assert row["captions_of"] == ""
            assert len(said) == 1
            assert said[0] not in words
        if row["fault"] in ("exact_copy", "near_copy"):
            assert row["picture_of"] in clean
        if row["fault"] == "near_copy":
            assert said == words
        if row["how"] == "equal":
            assert said != words
            assert words[0] in said[-1]
    said = Counter(row["captions_of"] for row in truth.values() if row["fault"] == "mismatched")
    assert set(said.values()) == {1}


def test_the_same_seed_gives_the_same_pool_in_whatever_order_the_records_lie(base: Path, pool: Path) -> None:
    assert build_pool(base, pool, CONFIG, jobs=1) == pool  # is there
    again = build_pool(base, pool.parent / "again", CONFIG, jobs=1)
    assert read_truth(again) == read_truth(pool)
    assert Dataset.open(again).fingerprint == Dataset.open(pool).fingerprint
    turned = PlantedPool(CONFIG, clean_dataset(pool.parent / "turned", clean_records()[::-1]))
    whose = [turned._of(p).uid(p.place) for p in turned.plan]
    assert whose == [row["picture_of"] for row in read_truth(pool).values()]
    other = PlantedPool(CONFIG.replace(seed=1), base)
    assert [p.fault for p in other.plan] != [row["fault"] for row in read_truth(pool).values()]


def test_what_the_dataset_has_of_faults_itself_is_left_out(tmp_path: Path) -> None:
    records = clean_records(40, 8)

    def more() -> Iterator[Record]:
        yield from records
        for i, of in enumerate((0, 41)):  # saved anew: one like a record of the pool, one like a test picture
            image = encode(pixels(of, height=48, width=64), "JPEG", quality=70)
            yield Record.pair(f"like-{i}", image, "jpg", (f"another word for {of}",), None, {"split": "train"})
        for i in range(3):
            image = encode(pixels(900 + i, height=48, width=64))
            said = ("part of the collection", f"thing {i}") if i else ("Part of the collection",)
            yield Record.pair(f"shared-{i}", image, "png", said, None, {"split": "train"})

    base = clean_dataset(tmp_path / "clean", list(more()))
    source = PlantedPool(PlantedPoolConfig(most_shared=2), base)
    assert source.left_out == 3  # the two look-alikes, and what says nothing but the shared caption
    said = [t for r in source.records() if r.meta["split"] == "train" for t in _parts(r)[1]]
    assert "part of the collection" not in {t.casefold() for t in said}
    assert PlantedPool(PlantedPoolConfig(most_shared=0), base).left_out == 2
    build_pool(base, tmp_path / "pool", PlantedPoolConfig(most_shared=2), jobs=1)
    assert '"left_out": 3' in (tmp_path / "pool" / ABOUT).read_text()


def test_what_looks_like_a_test_picture_without_words_of_its_own_is_left_out_too(tmp_path: Path) -> None:
    def made(key: str, image: bytes, kind: str, said: str, split: str) -> Record:
        return Record.pair(key, image, kind, (said,), None, {"split": split})

    records = clean_records(40, 8)
    records += [
        made(f"shared-{i}", encode(pixels(900 + i, height=48, width=64)), "png", "of us all", "test") for i in range(3)
    ]
    like = encode(pixels(901, height=48, width=64), "JPEG", quality=70)
    records.append(made("like", like, "jpg", "a word of its own", "train"))
    base = clean_dataset(tmp_path / "clean", records)
    source = PlantedPool(PlantedPoolConfig(most_shared=2, leaked=0.1), base)
    assert source.left_out == 1
    assert like not in {_parts(r)[0] for r in source.records() if r.meta["split"] == "train"}
    tests = Dataset.open(base).split("test")
    leaked = {tests.captions(p.place)[0] for p in source.plan if p.fault == "leaked"}
    assert leaked
    assert "of us all" not in leaked


def test_words_of_others_are_never_ones_own() -> None:
    captions = [("a",), ("A", "b"), ("c",), ("d", "a"), ("e",), ("f",)]
    found = others_words(captions)
    assert sorted(found) == list(range(6))
    for mine, other in enumerate(found):
        assert {t.lower() for t in captions[mine]}.isdisjoint(t.lower() for t in captions[other])
    assert others_words([]) == []
    with pytest.raises(ConfigError, match=r"mismatched captions must be another's, and not equal; got 3"):
        others_words([("a",), ("a",), ("a", "b")])


def test_shares_that_cannot_be_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValidationError), match=r"shares of faults must leave clean records; got 1\.01"):
        PlantedPoolConfig(mismatched=0.7)
    with pytest.raises(ConfigError, match="must leave a clean record for each copy"):
        PlantedPool(PlantedPoolConfig(duplicates=0.4), base)
    with pytest.raises(ConfigError, match=r"leaked must be a share that the test pictures can fill; got 0.3"):
        PlantedPool(PlantedPoolConfig(leaked=0.3, mismatched=0.1), base)
    same = [replace(r, segments=(r.segments[0], clean_records(1, 0)[0].segments[1])) for r in clean_records(9, 2)]
    alike = clean_dataset(tmp_path / "same", same)
    with pytest.raises(ConfigError, match="must be made of records with a picture and a caption of their own"):
        PlantedPool(PlantedPoolConfig(most_shared=1), alike)
