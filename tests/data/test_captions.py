"""Captions read live: one of a record's, as ids with a hash."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.captions import LiveCaptions, longest_rows, text_id
from diptych.data.dataset import Split
from diptych.data.decode import encode_png
from diptych.data.samples import choose, sample_keys
from diptych.data.shards import ShardWriter
from tests.data import tiny_pages, tiny_split


def test_what_is_drawn_is_said(tmp_path: Path) -> None:
    split, tokenizer = tiny_split.opened(tmp_path, 4), tiny_split.tokenizer()
    captions, records, keys = LiveCaptions(split, tokenizer, "draw"), np.array([2, 0, 2]), sample_keys(0, 3, 0)
    for record in (2, 0):
        captions.check(record)
    which = captions.choose(records, keys)
    assert which.tolist() == [choose(k, 2, (1.0, 0.0)) for k in keys]
    texts = captions.texts(records, which)
    assert [tokenizer.decode(row.tolist()) for row in texts.tokens] == [f"picture number {r}" for r in records]
    assert texts.ids[0] == texts.ids[2] != texts.ids[1]
    assert LiveCaptions(split, tokenizer, "first").choose(records, keys).tolist() == [0, 0, 0]


def test_a_record_without_a_caption_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.add(Record.pair("k", encode_png(tiny_split.picture(0)), "png", ()), sizes=[(12, 12)])
    captions = LiveCaptions(Split("train", [tmp_path / "00000.tar"]), tiny_split.tokenizer(), "draw")
    with pytest.raises(DataError, match="a pair must have a caption"):
        captions.check(0)


def test_text_id_is_a_signed_hash_of_the_ids() -> None:
    tokenizer = tiny_split.tokenizer()
    ids = [text_id(tokenizer.encode(f"picture number {i}")) for i in range(40)]
    assert len(set(ids)) == 40
    assert min(ids) < 0 < max(ids) < 2**63


def test_what_bears_loss_is_part_of_the_hash(tmp_path: Path) -> None:
    words = ("number 1", "number 2")
    asked = Record("a", (tiny_pages.question(words[0]), tiny_pages.text(words[1])))
    read = Record("b", (tiny_pages.text(words[0]), tiny_pages.text(words[1])))
    captions = LiveCaptions(tiny_pages.opened(tmp_path, (asked, read)), tiny_split.tokenizer(), "draw")
    texts = captions.texts(np.array([0, 1]), np.array([0, 0]))
    assert torch.equal(texts.tokens[0], texts.tokens[1])
    assert texts.ids[0] != texts.ids[1]
    assert texts.loss_mask is not None
    assert texts.loss_mask[1].tolist() == [i > 0 for i in range(int(texts.lengths[1]))]
    assert texts.loss_mask[0].sum() < texts.loss_mask[1].sum()
    assert texts.places == [(), ()]


def test_the_longest_row_of_each_record(tmp_path: Path) -> None:
    split, tokenizer = tiny_pages.opened(tmp_path), tiny_split.tokenizer()
    found = longest_rows(split, tokenizer, range(len(split)))
    captions = LiveCaptions(split, tokenizer, "draw")
    for record, length in enumerate(found.tolist()):
        which = np.arange(split.pieces(record).alternatives)
        assert length == captions.texts(np.full(len(which), record), which).lengths.max()
    assert tokenizer.seen == sum(split.pieces(r).alternatives for r in range(len(split))), "its own count is left alone"
