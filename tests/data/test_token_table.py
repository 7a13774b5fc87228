"""The table of token ids gives the very batches that tokenising live gives, and is never a stale one."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.record import Record
from diptych.data import token_table as module
from diptych.data.captions import LiveCaptions, Texts
from diptych.data.dataset import Split
from diptych.data.decode import encode_png
from diptych.data.samples import sample_keys
from diptych.data.shards import ShardWriter
from diptych.data.token_table import CachedCaptions, TokenTable, token_table
from diptych.data.tokenize import Tokenizer
from tests.data import tiny_pages, tiny_split

CAPTIONS: list[tuple[tuple[str, ...], tuple[float, ...] | None]] = [
    (("picture number 1",), None),
    (("picture number 2", "a long caption that is cut off, since it has far too many words"), (0.2, 0.8)),
    (("a", "", "picture  NUMBER 1", "ünïcode"), (1.0, 0.0, 3.0, 0.5)),
    ((), None),
    (("x", "y", "z"), (0.0, 0.0, 0.0)),
    (("u", "v", "w"), None),
]


def write(folder: Path, captions: list[tuple[tuple[str, ...], tuple[float, ...] | None]]) -> Split:
    with ShardWriter(folder, records_per_shard=4) as writer:
        for i, (texts, weights) in enumerate(captions):
            record = Record.pair(f"k{i}", encode_png(tiny_split.picture(i, 2, 2)), "png", texts, weights)
            writer.add(record, sizes=[(2, 2)])
    return Split("train", sorted(folder.glob("*.tar")))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_split.tokenizer()


def equal(a: Texts, b: Texts) -> bool:
    masks = (a.loss_mask, b.loss_mask)
    alike = masks == (None, None) or (None not in masks and torch.equal(*masks))  # type: ignore[arg-type]
    tensors = all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    return tensors and alike and (a.truncated, a.places) == (b.truncated, b.places)


@pytest.mark.parametrize("pad_to", ["longest", "context"])
@pytest.mark.parametrize("weighted", [True, False])
def test_equal_to_the_live_path(tmp_path: Path, tokenizer: Tokenizer, pad_to: str, weighted: bool) -> None:
    split = write(tmp_path, [(c, w if weighted else None) for c, w in CAPTIONS] * 3)
    tokenizer = tokenizer.replaced(pad_to=pad_to)
    table = token_table(split, tokenizer)
    assert table is not None
    assert (len(table.steps) > 0) == weighted
    records = np.array([r for r in range(len(split)) if CAPTIONS[r % len(CAPTIONS)][0]] * 20)
    keys = sample_keys(0, len(records), 7)
    for how in ("draw", "first"):
        live, cached = LiveCaptions(split, tokenizer, how), CachedCaptions(table, split, tokenizer, how)  # type: ignore[arg-type]
        which = live.choose(records, keys)
        assert np.array_equal(which, cached.choose(records, keys))
        assert how == "first" or len(set(which.tolist())) > 2
        found, expected = cached.texts(records, which), live.texts(records, which)
        assert equal(found, expected)
        assert how == "first" or expected.truncated > 0


ONE_OF_EACH = range(len(tiny_pages.RECORDS))


@pytest.mark.parametrize("pad_to", ["longest", "context"])
@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_records_of_several_segments_equal_the_live_path(
    tmp_path: Path, tokenizer: Tokenizer, pad_to: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    split = tiny_pages.opened(tmp_path)
    tokenizer = tokenizer.replaced(pad_to=pad_to)
    table = token_table(split, tokenizer)
    assert table is not None
    live, cached = LiveCaptions(split, tokenizer, "draw"), CachedCaptions(table, split, tokenizer, "draw")
    for r in ONE_OF_EACH:
        assert live.check(r) == cached.check(r) == sum(s.modality == "image" for s in split.record(r).segments)
    groups = [[r] * 12 for r in ONE_OF_EACH] + [[0, 7] * 4, [4, 0], [1, 7], [6, 0], [5, 3], [*ONE_OF_EACH] * 5]
    for records in map(np.array, groups):
        keys = sample_keys(0, len(records), 7)
        which = live.choose(records, keys)
        assert np.array_equal(which, cached.choose(records, keys))
        found, expected = cached.texts(records, which), live.texts(records, which)
        assert equal(found, expected)
        pairs = set(records.tolist()) <= {0, 7}
        assert (expected.places is None) == (pairs or set(records.tolist()) <= {0, 1, 2, 7})
        assert not pairs or expected.loss_mask is None


def test_a_table_of_pairs_holds_nothing_more(tmp_path: Path, tokenizer: Tokenizer) -> None:
    table = token_table(tiny_pages.opened(tmp_path, tuple(map(tiny_pages.pair, range(3)))), tokenizer)
    assert table is not None
    sizes = {p.stem: p.stat().st_size for p in table.folder.glob("*.bin")}
    assert {name for name, size in sizes.items() if size == 0} == {"silent", "more", "place_of", "places"}


def test_records_that_say_nothing_are_refused_alike(tmp_path: Path, tokenizer: Tokenizer) -> None:
    split = write(tmp_path, CAPTIONS)
    raw = bytearray(split.shards[1].read_bytes())
    at = raw.index(b'{"captions"')
    raw[at : at + 11] = b"x" * 11
    split.shards[1].write_bytes(raw)
    split = Split("train", split.shards)
    table = token_table(split, tokenizer)
    assert table is not None
    for record in (3, 4):
        with pytest.raises(Exception) as live:
            LiveCaptions(split, tokenizer, "draw").check(record)
        with pytest.raises(Exception) as cached:
            CachedCaptions(table, split, tokenizer, "draw").check(record)
        assert (type(live.value), str(live.value)) == (type(cached.value), str(cached.value))


def test_it_is_made_once_and_again_when_anything_changed(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, made = write(tmp_path, CAPTIONS), []
    build = module._build
    monkeypatch.setattr(module, "_build", lambda *a: (made.append(1), build(*a)))
    first = token_table(split, tokenizer)
    assert first is not None
    seen = tokenizer.seen
    assert token_table(split, tokenizer) is not None
    assert len(made) == 1
    assert token_table(split, tokenizer.with_context_length(5)) is not None
    assert len(made) == 2
    (first.folder / "ids.bin").write_bytes(b"cut")
    assert token_table(split, tokenizer) is not None
    assert len(made) == 3
    os.utime(split.shards[0], ns=(1, 1))  # the same records, but perhaps other weights
    assert token_table(split, tokenizer) is not None
    assert len(made) == 4
    assert tokenizer.seen == seen, "its counters are those of training"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == sorted(
        f"tokens-{t.fingerprint}" for t in (tokenizer, tokenizer.with_context_length(5))
    )


def test_it_lies_in_the_cache_where_the_dataset_cannot_be_written(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = write(tmp_path / "data", CAPTIONS)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    table = token_table(split, tokenizer)
    assert table is not None
    assert tmp_path / "cache" in table.folder.parents
    (tmp_path / "cache" / "tokens").rename(tmp_path / "elsewhere")
    (tmp_path / "cache" / "tokens").write_text("in the way")
    assert token_table(split, tokenizer) is None
    assert "captions are tokenised anew" in capsys.readouterr().err


def test_workers_and_chunks_change_nothing(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = write(tmp_path, CAPTIONS * 2)
    one = token_table(split, tokenizer)
    assert one is not None
    kept = {p.name: p.read_bytes() for p in one.folder.iterdir()}
    monkeypatch.setattr(module, "_CHUNK", 3)
    monkeypatch.setattr(module, "_MANY", 1)
    (one.folder / "about.json").unlink()
    many = token_table(split, tokenizer)
    assert many is not None
    assert {p.name: p.read_bytes() for p in many.folder.iterdir()} == kept


def test_a_copy_maps_the_files_itself(tmp_path: Path, tokenizer: Tokenizer) -> None:
    table = token_table(write(tmp_path, CAPTIONS), tokenizer)
    assert table is not None
    raw = pickle.dumps(table)
    assert len(raw) < 1000
    copy = pickle.loads(raw)
    assert isinstance(copy, TokenTable)
    assert np.array_equal(copy.ids, table.ids)
