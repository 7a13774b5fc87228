"""Easy records first: the pool follows the schedule, its end is the plain order, and nobody's company matters."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data.curriculum import CurriculumConfig, Paced, order_of, scores_of
from diptych.data.dataset import Dataset, Split
from diptych.data.mixture import Mixture
from diptych.data.pack import PackConfig, pack
from diptych.data.samples import Shuffled
from diptych.data.sources.source import FromRecords
from tests.data import tiny_pages

COUNT, TOTAL = 200, 200_000
SCHEDULE = ((0.0, 0.1), (0.5, 0.6), (0.8, 1.0))


def drawn(order: object, low: int, high: int, further: int = 0) -> np.ndarray:
    numbers = np.arange(low, high)
    return order.places(numbers, numbers, further)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def ranked() -> np.ndarray:
    return np.random.default_rng(0).permutation(COUNT)


def test_the_pool_follows_the_schedule(ranked: np.ndarray) -> None:
    order = Paced(ranked, SCHEDULE, 3, TOTAL)
    rank = np.empty(COUNT, dtype=int)
    rank[ranked] = np.arange(COUNT)
    for at, share in ((0.0, 0.1), (0.25, 0.35), (0.5, 0.6), (0.65, 0.8)):
        low = int(at * TOTAL)
        found = rank[drawn(order, low, low + 600)] / COUNT
        assert found.max() < share + 0.04, "none that is harder than the pool"
        assert found.mean() == pytest.approx(share / 2, abs=0.035), "uniform within it"
        easiest = (found < 0.1).mean()
        assert easiest == pytest.approx(0.1 / share, abs=0.06)


def test_its_end_is_the_plain_order(ranked: np.ndarray) -> None:
    order, plain = Paced(ranked, SCHEDULE, 3, TOTAL), Shuffled(COUNT, 3)
    low = int(0.8 * TOTAL)
    assert np.array_equal(drawn(order, low, low + 900), drawn(plain, low, low + 900))
    assert not np.array_equal(drawn(order, 0, 400), drawn(plain, 0, 400))
    whole = Paced(ranked, ((0.0, 1.0),), 3, TOTAL)
    assert np.array_equal(drawn(whole, 0, 500), drawn(plain, 0, 500))


def test_a_sample_is_a_function_of_its_number_alone(ranked: np.ndarray) -> None:
    order = Paced(ranked, SCHEDULE, 3, TOTAL)
    low, high = 159_950, 160_050  # over the end of the schedule
    assert drawn(order, low, high).tolist() == [int(drawn(order, n, n + 1)[0]) for n in range(low, high)]
    assert not np.array_equal(drawn(order, 0, 100), drawn(order, 0, 100, further=1))
    assert not np.array_equal(drawn(order, 0, 100), drawn(Paced(ranked, SCHEDULE, 4, TOTAL), 0, 100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curriculum") / "data"
    records = [
        Record.pair(f"k{i}", tiny_pages.image(i).data, "png", ("x" * (i + 1), "y" * (i + 3))) for i in range(30)
    ] + [Record("mute", (tiny_pages.image(99),))]
    config = PackConfig(jobs=1, val=0.2, images_only=True, records_per_shard=7, vocab_size=300)
    pack(FromRecords(lambda: records), out, config)
    return out


def lengths(split: Split) -> list[float]:
    return [np.mean([*map(len, split.captions(i))]) if split.captions(i) else np.nan for i in range(len(split))]


def test_scores_come_from_the_dataset_or_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = Dataset.open(folder).splits["train"]
    found = scores_of(split, CurriculumConfig())
    assert np.array_equal(found, lengths(split), equal_nan=True)
    if np.isnan(found).any():
        assert "1 of" in capsys.readouterr().err
    sizes = scores_of(split, CurriculumConfig(column="bytes"))
    assert sizes.tolist() == [len(split.image_bytes(i)) for i in range(len(split))]
    some = {split.uid(i): float(i) for i in range(len(split) - 3)}
    rows = {"uid": [*some, "0" * 32], "ease": [*some.values(), 5.0]}
    pq.write_table(pa.table(rows), tmp_path / "scores.parquet")
    mine = CurriculumConfig(scores=str(tmp_path / "scores.parquet"), column="ease", easy="high")
    found = scores_of(split, mine)
    assert np.array_equal(found[:-3], np.arange(len(split) - 3))
    assert np.isnan(found[-3:]).all()
    assert f"3 of {len(split)} records have no ease and join last" in capsys.readouterr().err
    order = order_of(split, mine, 0, 1000)
    assert isinstance(order, Paced)
    assert order._ranked[:-3].tolist() == list(range(len(split) - 4, -1, -1))
    assert sorted(order._ranked[-3:].tolist()) == list(range(len(split) - 3, len(split)))


def test_equal_scores_join_in_random_order(folder: Path) -> None:
    split = Dataset.open(folder).splits["train"]
    order = order_of(split, CurriculumConfig(column="width"), 0, 1000)
    assert isinstance(order, Paced)
    assert order._ranked.tolist() != list(range(len(split)))
    assert sorted(order._ranked.tolist()) == list(range(len(split)))


def test_each_part_of_a_mixture_has_its_own_pool(folder: Path) -> None:
    splits = Dataset.open(folder).splits
    mixed = Mixture("train", [("a", 1.0, splits["train"]), ("b", 1.0, splits["val"])])
    order = order_of(mixed, CurriculumConfig(schedule=((0.0, 0.3), (1.0, 0.3))), 0, 10_000)
    found = set(drawn(order, 0, 4000).tolist())
    known = lengths(mixed)
    for start, end in ((0, len(splits["train"])), (len(splits["train"]), len(mixed))):
        easy = sorted(range(start, end), key=lambda i: known[i] if known[i] == known[i] else np.inf)
        assert {r for r in found if start <= r < end} == set(easy[: int(np.ceil(0.3 * (end - start)))])


def test_what_is_wrong_is_said(folder: Path, tmp_path: Path) -> None:
    split = Dataset.open(folder).splits["train"]
    with pytest.raises(ConfigError, match=r"must be a column of .*records.parquet beside uid; got 'aesthetic'"):
        scores_of(split, CurriculumConfig(column="aesthetic"))
    with pytest.raises(ConfigError, match="must hold numbers; got 'format'"):
        scores_of(split, CurriculumConfig(column="format"))
    with pytest.raises(DataError, match=r"must be a parquet file; got .*nothing.parquet"):
        scores_of(split, CurriculumConfig(scores=str(tmp_path / "nothing.parquet"), column="ease"))
    pq.write_table(pa.table({"uid": ["0" * 32], "ease": [1.0]}), tmp_path / "others.parquet")
    with pytest.raises(DataError, match="has none of them"):
        scores_of(split, CurriculumConfig(scores=str(tmp_path / "others.parquet"), column="ease"))
    for schedule in ((), ((0.5, 0.1), (0.2, 1.0)), ((0.0, 0.0),), ((0.0, 2.0),), ((-1.0, 0.5),)):
        with pytest.raises((ConfigError, ValidationError), match=r"curriculum\.schedule must"):
            CurriculumConfig(schedule=schedule)
    config = CurriculumConfig(column="width", schedule=SCHEDULE)
    assert from_json(to_json(config)) == config
