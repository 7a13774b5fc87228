"""A mixture: parts by weight, an order that is computed, one dataset for the rest of the house."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.curriculum import order_of
from diptych.data.dataset import Dataset, Split
from diptych.data.mixture import PERIOD, Mixed, Mixture, Part, open_datasets, slots
from diptych.data.pack import PackConfig, pack
from diptych.data.samples import Shuffled
from diptych.data.selection import Selection
from diptych.data.sources.source import FromRecords
from tests.data import tiny_pages, tiny_split
from tests.data.curation_pools import packed_pool


def orders(sizes: tuple[int, ...], weights: tuple[float, ...], seed: int = 0) -> Mixed:
    starts = np.cumsum([0, *sizes]).tolist()
    return Mixed(
        [(w, s, Shuffled(n, i)) for i, (w, s, n) in enumerate(zip(weights, starts, sizes, strict=False))], seed
    )


def drawn(order: Mixed, low: int, high: int) -> np.ndarray:
    numbers = np.arange(low, high)
    return order.places(numbers, numbers)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2, 0.1), (5.0, 0.003, 2.0), (1.0,)])
def test_slots_are_the_nearest_whole_shares(weights: tuple[float, ...]) -> None:
    found = slots(weights)
    assert found.sum() == PERIOD
    assert np.abs(found - np.array(weights) / sum(weights) * PERIOD).max() < 1


def test_parts_come_by_weight_and_go_through_epochs_of_their_own() -> None:
    order = orders((30, 70, 11), (0.5, 0.3, 0.2))
    found = drawn(order, 0, PERIOD)
    part = np.searchsorted([30, 100, 111], found, side="right")
    assert np.bincount(part).tolist() == [5000, 3000, 2000]
    for start, end in ((0, 30), (30, 100), (100, 111)):
        mine = found[(found >= start) & (found < end)] - start
        counts = np.bincount(mine, minlength=end - start)
        assert counts.max() - counts.min() <= 1, "whole epochs, and one that is begun"
    early = np.bincount(part[:400], minlength=3) / 400
    assert np.abs(early - [0.5, 0.3, 0.2]).max() < 0.08, "mixed from the start"


def test_no_sample_depends_on_which_others_are_asked_for() -> None:
    order = orders((30, 70), (0.25, 0.75))
    whole = drawn(order, PERIOD - 50, PERIOD + 50)
    alone = np.concatenate([drawn(order, n, n + 1) for n in range(PERIOD - 50, PERIOD + 50)])
    assert np.array_equal(whole, alone)
    numbers = np.arange(100)
    other = order.places(numbers, numbers, further=1)
    same_part = (other < 30) == (drawn(order, 0, 100) < 30)
    assert same_part.all(), "what cannot be read is replaced out of its own part"
    assert (other != drawn(order, 0, 100)).all()
    assert not np.array_equal(drawn(order, 0, 100), drawn(orders((30, 70), (0.25, 0.75), seed=1), 0, 100))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two packed datasets: pairs, and records of all kinds."""
    kinds = ([tiny_pages.pair(i) for i in range(12)], list(tiny_pages.RECORDS))
    for name, records in zip(("pairs", "pages"), kinds, strict=True):
        pack(FromRecords(lambda r=records: r), tmp_path / name, PackConfig(jobs=1, val=0.2, vocab_size=300))  # type: ignore[misc]
    return [tmp_path / "pairs", tmp_path / "pages"]


def test_it_is_a_split_of_all_records(parts: list[Path]) -> None:
    pairs, pages = (Dataset.open(p).splits["train"] for p in parts)
    mixed = Mixture("train", [("pairs", 1.0, pairs), ("pages", 3.0, pages)])
    assert len(mixed) == len(pairs) + len(pages)
    assert mixed.parts == ((0.25, 0, len(pairs)), (0.75, len(pairs), len(mixed)))
    assert pickle.loads(pickle.dumps(mixed)).record(len(pairs)) == mixed.record(len(pairs)) == pages.record(0)
    assert mixed.key(0) == f"pairs:{pairs.key(0)}"
    assert mixed.key(len(pairs)) == f"pages:{pages.key(0)}"
    assert mixed.image_counts().tolist() == [*pairs.image_counts(), *pages.image_counts()]
    assert mixed.describe(1000).startswith(f"pairs 25.0% ({len(pairs)} records, ")
    order = order_of(mixed, None, 7, 100)
    assert sorted(set(drawn(order, 0, 500).tolist())) == list(range(len(mixed)))  # type: ignore[arg-type]
    plain = order_of(pairs, None, 7, 100)
    assert isinstance(plain, Shuffled)


def test_a_dataset_of_parts(parts: list[Path]) -> None:
    mixture = (Part(path=str(parts[0])), Part(path=str(parts[1]), weight=2.0))
    data = open_datasets([parts[0], *parts], mixture, "train")
    split = data.split("train")
    assert isinstance(split, Mixture)
    assert split.labels == ("pairs", "pages")
    home = Dataset.open(parts[0])
    assert len(data.splits["val"]) == len(home.splits["val"])
    assert data.tokenizer().fingerprint == home.tokenizer().fingerprint
    others = [
        open_datasets([parts[0], *parts], (*mixture[:1], mixture[1].replace(weight=1.0)), "train").fingerprint,
        open_datasets([parts[0], parts[0]], mixture[:1], "train").fingerprint,
        open_datasets([parts[1], *parts], mixture, "train").fingerprint,
        home.fingerprint,
    ]
    assert data.fingerprint not in others
    assert len(set(others)) == 4
    assert open_datasets([parts[0]], (), "train").fingerprint == home.fingerprint
    twice = open_datasets([parts[0]] * 3, (mixture[0], mixture[0]), "train").split("train")
    assert isinstance(twice, Mixture)
    assert twice.labels == ("pairs 1", "pairs 2")


def test_what_cannot_be_mixed_is_said(parts: list[Path], tmp_path: Path) -> None:
    split = tiny_split.opened(tmp_path / "tiny", 4)
    with pytest.raises(ConfigError, match=r"weight of a part must be at least 1 in 10,000 of all; got 5e-05 for b"):
        Mixture("train", [("a", 1.0, split), ("b", 5e-5, split)])
    with pytest.raises(DataError, match="got none in b"):
        Mixture("train", [("a", 1.0, split), ("b", 1.0, Split("train", []))])
    with pytest.raises(DataError, match="got 'trian'"):
        open_datasets([parts[0]] * 2, (Part(path=str(parts[0]), split="trian"),), "train")


def test_parts_may_be_selections(tmp_path):
    first = packed_pool(tmp_path / "a", [[f"a{i}"] for i in range(6)])
    second = packed_pool(tmp_path / "b", [[f"b{i}"] for i in range(5)])
    b = Dataset.open(second).split("train")
    Selection.of(b.uid(i) for i in (1, 3)).save(tmp_path / "s.npy")
    parts = (Part(path=str(first)), Part(path=str(second), selection=str(tmp_path / "s.npy")))
    mixed = open_datasets([first, first, second], parts, "train")
    split = mixed.split("train")
    assert [split.captions(i)[0] for i in range(len(split))] == [f"a{i}" for i in range(6)] + ["b1", "b3"]
    whole = open_datasets([first, first, second], (parts[0], Part(path=str(second))), "train")
    assert mixed.fingerprint != whole.fingerprint
    with pytest.raises(ConfigError, match="each part of which has its own"):
        open_datasets([first, first, second], parts, "train", selection="s.npy")


def test_a_run_may_read_a_selection_alone(tmp_path):
    path = packed_pool(tmp_path / "a", [[f"a{i}"] for i in range(6)])
    whole = Dataset.open(path).split("train")
    Selection.of(whole.uid(i) for i in (0, 5)).save(tmp_path / "s.npy")
    found = open_datasets([path], (), "train", str(tmp_path / "s.npy"))
    assert [found.split("train").captions(i) for i in range(2)] == [("a0",), ("a5",)]
    assert found.fingerprint != Dataset.open(path).fingerprint
