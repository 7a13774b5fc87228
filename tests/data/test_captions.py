"""Captions read live: one of a record's, as ids with a hash."""

from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.captions import LiveCaptions, text_id
from diptych.data.dataset import Split
from diptych.data.decode import encode_png
from diptych.data.samples import choose, sample_keys
from diptych.data.shards import ShardWriter
from tests.data import tiny_split


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
