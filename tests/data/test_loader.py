"""Batches: the same bits for any workers, ranks and restarts; bad records and dead workers are met with words."""

import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, DataError, TrainingError
from diptych.core.image_format import ImageFormat
from diptych.core.record import Record
from diptych.data.album import content_id
from diptych.data.augment import AugmentConfig
from diptych.data.curriculum import CurriculumConfig
from diptych.data.dataset import Split
from diptych.data.decode import decode_image, resize_image
from diptych.data.features import FeatureTable
from diptych.data.loader import Loader, LoaderConfig
from diptych.data.mixture import Mixture, Part
from diptych.data.tokenize import Tokenizer
from tests.data import tiny_pages, tiny_split

FORMAT = ImageFormat(resolution=8, resize="squash")
AUGMENT = AugmentConfig(rotate=20, saturation=0.3, blur=0.5)
FIELDS = ("images", "tokens", "lengths", "image_ids", "text_ids", "sample_ids")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return tiny_split.opened(tmp_path_factory.mktemp("split"), 22, sizes=((12, 12), (12, 12), (9, 16)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_split.tokenizer()


def loader(split: Split, tokenizer: Tokenizer, rank: int = 0, world_size: int = 1, **settings: object) -> Loader:
    config = LoaderConfig(**{"workers": 0, "augment": AUGMENT, **settings})
    return Loader(split, tokenizer, FORMAT, config, seed=3, global_batch=8, rank=rank, world_size=world_size)


def rows(batches: list[Batch]) -> dict[int, tuple[object, ...]]:
    """Each sample's content by its n, whatever batch it came in (padding left out)."""
    found = {}
    for b in batches:
        assert b.images is not None
        assert b.tokens is not None
        assert b.lengths is not None
        assert b.sample_ids is not None
        assert b.image_ids is not None
        assert b.text_ids is not None
        for i, n in enumerate(b.sample_ids.tolist()):
            ids = tuple(b.tokens[i, : int(b.lengths[i])].tolist())
            found[n] = (b.images[i].numpy().tobytes(), ids, int(b.image_ids[i]), int(b.text_ids[i]))
    return found


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(getattr(x, f), getattr(y, f)) for x, y in zip(a, b, strict=True) for f in FIELDS
    )


def test_workers_and_cache_change_nothing(split: Split, tokenizer: Tokenizer) -> None:
    plain = list(loader(split, tokenizer, cache="none").batches(0, 48))
    assert [b.size for b in plain] == [8] * 6
    assert equal(plain, list(loader(split, tokenizer, cache="pixels").batches(0, 48)))
    for workers in (1, 2):
        assert equal(plain, list(loader(split, tokenizer, cache="none", workers=workers).batches(0, 48)))


def test_a_measured_number_of_workers_changes_nothing(
    split: Split, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = list(loader(split, tokenizer, tokens="live").batches(0, 64))
    assert equal(plain, list(loader(split, tokenizer, workers=-1).batches(0, 64)))
    assert "loader:" not in capsys.readouterr().err, "too short a run to start processes for"
    monkeypatch.setattr("diptych.data.loader.SHORT", 2)
    assert equal(plain, list(loader(split, tokenizer, workers=-1).batches(0, 64)))
    assert "to prepare, a step" in capsys.readouterr().err


def test_tokens_from_a_table_change_nothing(split: Split, tokenizer: Tokenizer) -> None:
    live = list(loader(split, tokenizer, tokens="live").batches(0, 48))
    cached = loader(split, tokenizer)
    for workers in (0, 1):
        assert equal(live, list(loader(split, tokenizer, workers=workers).batches(0, 48)))
    next(cached.batches(0, 8))
    assert type(cached._maker.captions).__name__ == "LiveCaptions", "less than an epoch is not worth a table"
    next(cached.batches(0, 22))
    assert type(cached._maker.captions).__name__ == "CachedCaptions"


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_samples(split: Split, tokenizer: Tokenizer, world_size: int) -> None:
    whole = rows(list(loader(split, tokenizer).batches(0, 44)))
    parts = [list(loader(split, tokenizer, r, world_size).batches(0, 44)) for r in range(world_size)]
    assert {n: x for p in parts for n, x in rows(p).items()} == whole
    assert list(whole) == list(range(44))
    for batches in zip(*parts, strict=True):  # the ranks' shares, in rank order, are the global batch
        ids = torch.cat([b.sample_ids for b in batches if b.sample_ids is not None]).tolist()
        assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize("start", [8, 24, 13])
def test_a_restart_continues_with_the_same_bits(split: Split, tokenizer: Tokenizer, start: int) -> None:
    whole = rows(list(loader(split, tokenizer).batches(0, 48)))
    rest = list(loader(split, tokenizer).batches(start, 48))
    assert rows(rest) == {n: x for n, x in whole.items() if n >= start}
    assert rest[0].size == 8 - start % 8, "boundaries stay where they were"


def test_every_record_comes_once_an_epoch(split: Split, tokenizer: Tokenizer) -> None:
    batches = list(loader(split, tokenizer).batches(0, 44))
    records = [r for b in batches if b.meta for r in b.meta["records"]]
    assert sorted(records[:22]) == sorted(records[22:]) == list(range(22))


def test_the_end_divides_by_the_ranks(split: Split, tokenizer: Tokenizer) -> None:
    assert [b.size for b in loader(split, tokenizer).batches(0, 19)] == [8, 8, 3]
    two = loader(split, tokenizer, 0, 2)
    assert [b.size for b in two.batches(0, 19)] == [4, 4, 1]
    assert (two.last_sample(0, 19), two.last_sample(0, 16), two.last_sample(17, 19)) == (18, 16, 19)
    assert list(two.batches(16, 17)) == []
    with pytest.raises(ConfigError, match=r"start_sample must leave a part .* got 13"):
        two.batches(13, 48)
    with pytest.raises(ConfigError, match=r"global_batch must be a multiple of the 3 processes; got 8\. Take 9"):
        loader(split, tokenizer, 0, 3)


def test_batches_hold_what_the_contract_says(split: Split, tokenizer: Tokenizer) -> None:
    batch = next(loader(split, tokenizer).batches(0, 8))
    assert batch.images is not None
    assert batch.images.shape == (8, 3, 8, 8)
    assert batch.images.dtype == torch.uint8
    assert batch.tokens is not None
    assert batch.lengths is not None
    assert batch.meta is not None
    assert batch.tokens.shape == (8, int(batch.lengths.max()))
    assert batch.image_ids is not None
    assert batch.image_ids.tolist() == [split.image_id(r) for r in batch.meta["records"]]
    assert tokenizer.decode(batch.tokens[0].tolist()) == f"picture number {batch.meta['records'][0]}"


def test_truncation_is_counted(split: Split) -> None:
    for workers in (0, 1):
        short = tiny_split.tokenizer().with_context_length(3)
        made = loader(split, short, workers=workers)
        batches = list(made.batches(0, 24))
        assert sum(b.truncated for b in batches) == made.truncated == short.truncated == 24
        assert made.seen == short.seen == 24


def test_resolution_follows_the_samples_seen(split: Split, tokenizer: Tokenizer) -> None:
    made = loader(split, tokenizer)
    sides = [b.images.shape[-1] for b in made.batches(0, 32, lambda n: 6 if n < 16 else 8) if b.images is not None]
    assert sides == [6, 6, 8, 8]
    assert next(made.batches(0, 8, 5)).images.shape[-1] == 5  # type: ignore[union-attr]


def rot(folder: Path, records: list[int], count: int) -> Split:
    """A split in whose tar the pixels of `records` have been overwritten since it was packed."""
    tar = tiny_split.write(folder, count)
    raw = bytearray(tar.read_bytes())
    split = Split("train", [tar])
    for r in records:
        data = split.image_bytes(r)
        at = raw.index(data)
        raw[at + 40 : at + len(data)] = bytes(len(data) - 40)
    tar.write_bytes(raw)
    return Split("train", [tar])


@pytest.mark.parametrize("cache", ["none", "pixels"])
@pytest.mark.parametrize("workers", [0, 2])
def test_rotten_records_are_named_and_replaced(tmp_path: Path, tokenizer: Tokenizer, cache: str, workers: int) -> None:
    split = rot(tmp_path, [3, 7], 20)
    made = loader(split, tokenizer, cache=cache, workers=workers)
    batches = list(made.batches(0, 40))
    assert [b.size for b in batches] == [8] * 5
    assert set(made.quarantine) == {split.key(3), split.key(7)}
    assert not {3, 7} & {r for b in batches if b.meta for r in b.meta["records"]}
    if workers:
        assert equal(batches, list(loader(split, tokenizer, cache=cache).batches(0, 40)))


def test_too_many_rotten_records_stop_the_run(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = rot(tmp_path, list(range(12)), 20)
    with pytest.raises(DataError, match=r"at most 1\.0% of train may be unreadable; got 11 of 20"):
        list(loader(split, tokenizer, cache="none").batches(0, 40))


class Killer:
    """A split whose record 5 ends the process that reads it, unless that is the main one."""

    def __init__(self, split: Split, how: str) -> None:
        self._split, self._main, self._how = split, os.getpid(), how

    def __getattr__(self, name: str) -> object:
        return getattr(self.__dict__["_split"], name)

    def __len__(self) -> int:
        return len(self._split)

    def image_bytes(self, i: int) -> bytes:
        if i == 5 and os.getpid() != self._main:
            if self._how == "hang":
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._split.image_bytes(i)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how, message", [("kill", "one died"), ("hang", "a batch within 1 s; it did not")])
def test_a_lost_worker_ends_the_run_with_advice(split: Split, tokenizer: Tokenizer, how: str, message: str) -> None:
    made = loader(split, tokenizer, cache="none", workers=2, timeout_s=1)
    killer = Killer(split, how)
    made._maker._views.split = killer  # type: ignore[assignment]
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(TrainingError, match=message):
        list(made.batches(0, 80))
    assert signal.getsignal(signal.SIGCHLD) == before


def test_the_global_random_state_is_left_alone(split: Split, tokenizer: Tokenizer) -> None:
    before = torch.get_rng_state()
    batches = loader(split, tokenizer, workers=1).batches(0, 24)
    next(batches)
    batches.close()
    assert torch.equal(before, torch.get_rng_state())


def test_scaled_decoding_is_close_and_never_cached(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = tiny_split.opened(tmp_path, 8, sizes=((64, 96),), jpeg=True)
    plain = AugmentConfig(crop_scale=None)
    full = next(loader(split, tokenizer, augment=plain, cache="none").batches(0, 8)).images
    made = loader(split, tokenizer, augment=plain, decode="scaled")
    scaled = next(made.batches(0, 8)).images
    assert made.pixels is None
    assert full is not None
    assert scaled is not None
    assert not torch.equal(full, scaled)
    assert (full.float() - scaled.float()).abs().mean() < 6, "noise, where scaling is at its worst"
    with pytest.raises(ConfigError, match=r"data.decode must be full"):
        loader(split, tokenizer, decode="scaled", cache="pixels")


def test_config_survives_the_disk() -> None:
    config = LoaderConfig(path="x", augment=AugmentConfig(zoom=(0.8, 1.2)))
    assert from_json(to_json(config)) == config


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return tiny_pages.opened(tmp_path_factory.mktemp("pages"))


EVERY = (*FIELDS, "image_record", "image_position", "loss_mask")


def same(a: list[Batch], b: list[Batch], fields: tuple[str, ...] = EVERY) -> bool:
    """Whether all tensors are the same, those that are not there included."""
    pairs = [(getattr(x, f), getattr(y, f)) for x, y in zip(a, b, strict=True) for f in fields]
    return all(u is v is None or (u is not None and v is not None and torch.equal(u, v)) for u, v in pairs)


def by_sample(batches: list[Batch]) -> dict[int, tuple[object, ...]]:
    """Each sample's content by its n, with its loss and its images and their places."""
    found = {}
    for b in batches:
        assert b.sample_ids is not None and b.lengths is not None and b.tokens is not None  # noqa: PT018
        assert b.images is not None and b.image_record is not None and b.image_ids is not None  # noqa: PT018
        for i, n in enumerate(b.sample_ids.tolist()):
            mine = b.image_record == i
            length = int(b.lengths[i])
            bears = torch.arange(length) > 0 if b.loss_mask is None else b.loss_mask[i, :length]
            position = torch.zeros(int(mine.sum())) if b.image_position is None else b.image_position[mine]
            tensors = (b.tokens[i, :length], bears, b.images[mine], b.image_ids[mine])
            found[n] = (*(t.numpy().tobytes() for t in tensors), position.tolist())
    return found


def test_pages_and_conversations_are_the_same_for_any_workers_ranks_and_restarts(
    pages: Split, tokenizer: Tokenizer
) -> None:
    live = list(loader(pages, tokenizer, tokens="live", cache="none").batches(0, 40))
    assert any(b.loss_mask is not None for b in live)
    assert any(b.image_position is not None for b in live)
    assert sum(b.truncated for b in live) > 0
    for settings in ({"cache": "pixels"}, {"workers": 2}, {"workers": 1, "tokens": "live"}):
        assert same(live, list(loader(pages, tokenizer, **settings).batches(0, 40)))  # type: ignore[arg-type]
    whole = by_sample(live)
    parts = [by_sample(list(loader(pages, tokenizer, r, 2).batches(0, 40))) for r in range(2)]
    assert {**parts[0], **parts[1]} == whole
    assert by_sample(list(loader(pages, tokenizer).batches(13, 40))) == {n: x for n, x in whole.items() if n >= 13}


def test_what_a_batch_of_pages_holds(pages: Split, tokenizer: Tokenizer) -> None:
    plain = AugmentConfig(crop_scale=None)
    long = tokenizer.with_context_length(64)
    batch = next(loader(pages, long, augment=plain, max_images=4).batches(0, 8))
    assert batch.meta is not None and batch.image_record is not None and batch.image_position is not None  # noqa: PT018
    assert batch.images is not None and batch.image_ids is not None and batch.lengths is not None  # noqa: PT018
    records = [pages.record(r) for r in batch.meta["records"]]
    counts = [min(4, sum(s.modality == "image" for s in r.segments)) for r in records]
    assert torch.bincount(batch.image_record, minlength=8).tolist() == counts
    assert (batch.image_record.diff() >= 0).all()
    data = [
        d
        for r, c in zip(records, counts, strict=True)
        for d in [s.data for s in r.segments if s.modality == "image"][:c]
    ]
    assert batch.image_ids.tolist() == [content_id(d) for d in data]
    expected = torch.stack([resize_image(decode_image(d), FORMAT) for d in data])
    assert torch.equal(batch.images, expected)
    for record, position in zip(batch.image_record.tolist(), batch.image_position.tolist(), strict=True):
        assert 0 <= position <= batch.lengths[record]
    assert batch.loss_mask is not None
    assert not batch.loss_mask[:, 0].any()


def test_pairs_among_them_are_batches_as_ever(split: Split, tokenizer: Tokenizer) -> None:
    for batch in loader(split, tokenizer).batches(0, 24):
        assert (batch.loss_mask, batch.image_position) == (None, None)
        assert batch.image_record is not None
        assert batch.image_record.tolist() == list(range(8))


@pytest.mark.parametrize("tokens", ["cached", "live"])
def test_what_has_one_side_alone_stays_where_it_may(tmp_path: Path, tokenizer: Tokenizer, tokens: str) -> None:
    silent = Record("silent", (tiny_pages.image(9),))
    split = tiny_pages.opened(tmp_path, (tiny_pages.pair(0), silent, tiny_pages.alone(1), tiny_pages.page(2)))
    config = LoaderConfig(workers=0, augment=AUGMENT, tokens=tokens, captions="first", max_bad=1.0)
    made = Loader(split, tokenizer, FORMAT, config, seed=3, global_batch=4)
    made.one_image(alone=True)
    for batch in made.batches(0, 8):
        assert batch.meta is not None
        assert batch.images is not None
        assert batch.lengths is not None
        assert batch.image_record is not None
        records = batch.meta["records"]
        assert sorted(records) == [0, 1, 2, 3]
        assert [int(n) > 0 for n in batch.lengths] == [r != 1 for r in records]
        assert batch.image_record.tolist() == [row for row, r in enumerate(records) if r != 2]
        assert len(batch.images) == 3
        assert batch.slice(1, 3).size == 2
    assert not made.quarantine
    strict = Loader(split, tokenizer, FORMAT, config, seed=3, global_batch=4)
    strict.one_image()
    list(strict.batches(0, 8))
    assert set(strict.quarantine) == {"silent", "alone1"}


def test_one_image_each_where_pairs_are_wanted(pages: Split, tokenizer: Tokenizer) -> None:
    made = loader(pages, tokenizer, max_bad=1.0)
    made.one_image()
    batches = list(made.batches(0, 40))
    for b in batches:
        assert b.image_record is not None
        assert b.image_record.tolist() == list(range(8))
        assert b.images is not None
        assert len(b.images) == 8
    assert list(made.quarantine) == [pages.key(6)]
    assert "a pair must have an image" in made.quarantine[pages.key(6)]


def test_what_no_one_reads_is_not_read(pages: Split, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(loader(pages, tokenizer).batches(0, 24))
    texts_only = Loader(pages, tokenizer, None, LoaderConfig(workers=0, augment=AUGMENT), seed=3, global_batch=8)
    with monkeypatch.context() as patch:
        patch.setattr(Split, "image_bytes", lambda *_: pytest.fail("an image was read"))
        found = list(texts_only.batches(0, 24))
    assert all(b.images is b.image_record is b.image_ids is b.image_position is None for b in found)
    assert same(found, whole, ("tokens", "lengths", "loss_mask", "text_ids", "sample_ids"))
    assert found[0].slice(2, 5).size == 3
    images_only = Loader(pages, None, FORMAT, LoaderConfig(workers=0, max_bad=1.0), seed=3, global_batch=8)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "bare", lambda *_: pytest.fail("a text was tokenised"))
        found = list(images_only.batches(0, 24))
    assert all(b.tokens is b.lengths is b.text_ids is None and b.images is not None for b in found)
    assert all(b.image_position is not None for b in found if len(b.images) != 8)  # type: ignore[arg-type]
    assert list(images_only.quarantine) == [pages.key(6)], "a text alone has nothing to show"


def test_records_without_any_image_train_a_language_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = tiny_pages.opened(tmp_path, tuple(tiny_pages.alone(i) for i in range(12)))
    made = Loader(split, tokenizer, None, LoaderConfig(workers=0), seed=3, global_batch=4)
    assert [b.size for b in made.batches(0, 24)] == [4] * 6
    assert made.quarantine == {}
    both = list(Loader(split, tokenizer, FORMAT, LoaderConfig(workers=0), seed=3, global_batch=4).batches(0, 4))
    assert both[0].images is not None
    assert both[0].images.shape == (0, 3, 8, 8)


def test_blind_batches_differ_in_their_images_alone(pages: Split, tokenizer: Tokenizer) -> None:
    sees = list(loader(pages, tokenizer).batches(0, 24))
    blind = list(loader(pages, tokenizer, blind=True).batches(0, 24))
    assert same(sees, blind, tuple(f for f in EVERY if f != "images"))
    for a, b in zip(sees, blind, strict=True):
        assert a.images is not None
        assert b.images is not None
        assert a.images.shape == b.images.shape
        assert b.images.flatten(2).unique(dim=2).shape == (len(b.images), 3, 1)
    normal = (blind[0].images.double() / 255 - torch.tensor(FORMAT.mean).view(3, 1, 1)) / torch.tensor(  # type: ignore[union-attr]
        FORMAT.std
    ).view(3, 1, 1)
    assert normal.abs().max() < 0.01, "grey is nothing to a model"


class NumberTable(FeatureTable):
    """A table whose vectors are the numbers of the records."""

    def __init__(self) -> None:
        self.bad, self.kind, self.copies = {}, "image", 1

    def gather(self, records: object, which: object) -> torch.Tensor:
        return torch.as_tensor(records).float()[:, None]


def test_tables_of_vectors_stand_for_one_image_a_record(pages: Split, tokenizer: Tokenizer) -> None:
    table = {"image": NumberTable()}
    config = LoaderConfig(workers=0)
    with pytest.raises(ConfigError, match=r"data.max_images must be 1 .* got 5 for records of up to 5 images"):
        Loader(pages, tokenizer, FORMAT, config, features=table)
    with pytest.raises(ConfigError, match=r"data\.blind must be off"):
        Loader(pages, tokenizer, FORMAT, config.replace(blind=True), features=table)
    made = Loader(pages, tokenizer, FORMAT, config.replace(max_images=1), 3, 8, features=table)
    found = [b for b in made.batches(0, 24) if b.image_position is not None]
    assert found
    for b in found:
        assert b.meta is not None and b.lengths is not None and b.cached is not None  # noqa: PT018
        assert b.cached["image"].flatten().tolist() == b.meta["records"]
        part = b.slice(2, 6)
        assert torch.equal(part.image_position, b.image_position[2:6])  # type: ignore[arg-type, index]
        assert part.image_record is not None
        assert part.image_record.tolist() == [0, 1, 2, 3]
        for record, at, length in zip(b.meta["records"], b.image_position.tolist(), b.lengths.tolist(), strict=True):  # type: ignore[union-attr]
            places = pages.pieces(record).images
            assert (at == 0) == (places[:1] == (0,))
            assert at == length or places


@pytest.mark.parametrize("paced", [False, True])
def test_a_mixture_and_a_curriculum_change_the_order_alone(
    tmp_path: Path, tokenizer: Tokenizer, paced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    a = tiny_split.opened(tmp_path / "a" / "train", 22)
    b = tiny_pages.opened(tmp_path / "b" / "train")
    mixed = Mixture("train", [("a", 0.75, a), ("b", 0.25, b)])
    scores = {"uid": [mixed.uid(i) for i in range(len(mixed))], "ease": list(range(len(mixed)))}
    pq.write_table(pa.table(scores), tmp_path / "ease.parquet")
    schedule = ((0, 0.2), (0.25, 0.2), (0.5, 1))
    curriculum = CurriculumConfig(scores=str(tmp_path / "ease.parquet"), column="ease", schedule=schedule)
    settings = {"augment": AugmentConfig(), "curriculum": curriculum if paced else None}
    whole = list(loader(mixed, tokenizer, tokens="live", **settings).batches(0, 40))
    assert same(whole, list(loader(mixed, tokenizer, workers=1, **settings).batches(0, 40)))
    assert len(list((tmp_path / "cache" / "tokens").glob("*/tokens-*"))) == 1, "parts lie apart: their table does too"
    rest = list(loader(mixed, tokenizer, **settings).batches(16, 40, total_samples=40))
    assert same(whole[2:], rest)
    parts = [by_sample(list(loader(mixed, tokenizer, r, 2, **settings).batches(0, 40))) for r in range(2)]
    assert {**parts[0], **parts[1]} == by_sample(whole)
    assert whole[0].meta is not None
    easy = {*range(5), *range(22, 24)}
    assert (set(whole[0].meta["records"]) <= easy) == paced


def test_paths_to_pack() -> None:
    parts = (Part(path="a", weight=2.0), Part(path="b", split="val"))
    assert LoaderConfig(path="x").paths == ("x",)
    assert LoaderConfig(path="x", mixture=parts).paths == ("x", "a", "b")
    config = LoaderConfig(mixture=parts, curriculum=CurriculumConfig(column="width"))
    assert config.paths == ("a", "a", "b")
    assert from_json(to_json(config)) == config
