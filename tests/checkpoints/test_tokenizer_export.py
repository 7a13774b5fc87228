"""Tests of tokenizers written for others: same ids in transformers, and ids that change places."""

import json
from pathlib import Path

import pytest

from diptych.checkpoints.tokenizer_export import save_for_others, swap_ids
from diptych.core.errors import CheckpointError
from diptych.data.tokenize import Tokenizer
from tests.checkpoints.tiny import TEXTS, tokenizer

transformers = pytest.importorskip("transformers")

ODD = [
    *TEXTS,
    "",
    " a  b\n\tc ",
    "MiXeD Case",
    "snake_case, and: (punctuation)!",
    "naïve café ☕",
    "9 lives 42",
    "it's",
]


def theirs(path: Path) -> "transformers.PreTrainedTokenizerBase":
    return transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("rule", ["clip", "siglip", "none"])
def test_transformers_gives_the_same_ids(tmp_path: Path, rule: str) -> None:
    mine = Tokenizer.train(TEXTS * 3, vocab_size=300, context_length=12, canonicalise=rule)
    save_for_others(tmp_path, mine)
    rows = theirs(tmp_path)(ODD, truncation=True).input_ids
    assert rows == [e.ids for e in mine.encode_all(ODD)]
    assert max(map(len, rows)) == 12
    again = Tokenizer.load(tmp_path)
    assert again.config == mine.config
    assert [e.ids for e in again.encode_all(ODD)] == rows
    save_for_others(tmp_path / "twice", again)
    assert (tmp_path / "twice/tokenizer.json").read_text() == (tmp_path / "tokenizer.json").read_text()


def test_clips_own_vocabulary_gives_the_same_ids_and_keeps_its_exclamation_mark(tmp_path: Path) -> None:
    """CLIP pads with 0, the id of "!": named as padding, it would be cut out of captions."""
    pytest.importorskip("open_clip")
    mine = Tokenizer.clip()
    save_for_others(tmp_path, mine)
    texts = [*ODD, "wow! amazing!!", "don't"]
    vocabulary = theirs(tmp_path)
    assert vocabulary(texts).input_ids == [e.ids for e in mine.encode_all(texts)]
    assert vocabulary.pad_token == "<|endoftext|>"


def test_ids_change_places_and_back() -> None:
    mine = tokenizer()
    last = mine.vocab_size - 1
    swapped = swap_ids(mine, mine.end_id, last)
    assert swapped.end_id == last
    other = {mine.end_id: last, last: mine.end_id}
    assert [e.ids for e in swapped.encode_all(ODD)] == [[other.get(i, i) for i in e.ids] for e in mine.encode_all(ODD)]
    back = swap_ids(swapped, mine.end_id, last)
    assert back.config == mine.config
    assert [e.ids for e in back.encode_all(ODD)] == [e.ids for e in mine.encode_all(ODD)]
    assert swapped.decode(swapped.encode("a photo").ids) == mine.decode(mine.encode("a photo").ids)


def test_a_padding_that_the_model_reads_must_be_a_special_token(tmp_path: Path) -> None:
    plain = tokenizer().replaced(pad_id=50)
    save_for_others(tmp_path, plain)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["pad_token"] == "<end>"
    with pytest.raises(CheckpointError, match="id 50 is an ordinary one"):
        save_for_others(tmp_path, plain, ids_only=True)
