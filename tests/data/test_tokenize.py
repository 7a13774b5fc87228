"""Tokenizers: exact to open_clip, lossless when trained, and never silent about what they cut."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.errors import ConfigError, DataError
from diptych.data.tokenize import Tokenizer, TokenizerConfig

CAPTIONS = [
    f"a {c} {s} on a {c2} table" for c in ("red", "blue", "Green") for s in ("cube", "ball") for c2 in ("oak", "old")
]
SHAPED = [
    "A photo of a dog's ball", "it'S O'REILLY don't DON'T we'Ll", "“curly” &amp;amp; &lt;b&gt; &eacute; caf\u00e9",
    "日本語 テスト 123 4567", "emoji 😀👍🏽!!", "ſ 'ſ \u212a Å ß ẞ İ I ı", "ﬁ ligature ǅ", "", "   ", "word " * 100,
    "a" * 500, "mojibake âœ” No problems", "x\u200by\ufeff\u0345z", "tabs\tand\r\nlines\x00\x1b[0m",
]  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.clip()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocab_size=320, context_length=12, canonicalise="none")


def odd_captions(n: int) -> list[str]:
    rng = random.Random(0)
    scripts = [
        *range(32, 0x250),
        *range(0x370, 0x52F),
        *range(0x3040, 0x3097),
        *range(0x1F600, 0x1F640),
        0x2019,
        0x2026,
    ]
    letters = [chr(c) for c in scripts if c != 0x378 and chr(c).isprintable()]
    plain = "abc de'st&;"
    return [
        "".join(rng.choice(letters if rng.random() < 0.4 else plain) for _ in range(rng.randint(1, 50)))
        for _ in range(n)
    ]


def test_clip_equals_open_clip(clip: Tokenizer) -> None:
    import open_clip

    theirs = open_clip.get_tokenizer("ViT-B-32")
    captions = SHAPED + odd_captions(2000)
    for i in range(0, len(captions), 500):
        part = captions[i : i + 500]
        tokens, lengths = clip.batch(part)
        expected = theirs(part)
        assert (expected[:, : tokens.shape[1]] == tokens).all()
        assert not expected[:, tokens.shape[1] :].any()
        assert (tokens[range(len(part)), lengths - 1] == clip.end_id).all(), "the end stays last, cut or not"


def test_clip_counts_what_it_cuts(clip: Tokenizer) -> None:
    short = clip.with_context_length(4)
    assert short.encode("one two").truncated is False
    cut = short.encode("one two three")
    assert cut.truncated
    assert cut.ids == [49406, *clip.encode("one two").ids[1:3], 49407]
    assert (short.seen, short.truncated) == (2, 1)
    assert short.context_length == 4


def test_a_caption_cannot_forge_a_special_token(clip: Tokenizer, trained: Tokenizer) -> None:
    assert clip.encode("<|endoftext|> x").ids.count(49407) == 1
    assert trained.encode("<end><start><pad>").ids[1:-1].count(trained.end_id) == 0
    assert trained.decode(trained.with_context_length(99).encode("<end> x").ids) == "<end> x"


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_trained_loses_nothing(text: str) -> None:
    tokenizer = _LOSSLESS
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


_LOSSLESS = Tokenizer.train(CAPTIONS, vocab_size=320, context_length=4096, canonicalise="none")


def test_trained_is_deterministic_whatever_the_order() -> None:
    shuffled = random.Random(1).sample(CAPTIONS, len(CAPTIONS))
    assert Tokenizer.train(CAPTIONS, 300).fingerprint == Tokenizer.train(shuffled, 300).fingerprint
    assert Tokenizer.train(CAPTIONS, 300).fingerprint != Tokenizer.train(CAPTIONS, 280).fingerprint


def test_trained_learns_words_and_folds_case() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, vocab_size=8192)
    assert 259 < tokenizer.vocab_size < 400, "few captions give few tokens"
    assert tokenizer.encode("Table").ids == tokenizer.encode("table").ids == tokenizer.encode(" table").ids
    assert len(tokenizer.encode("table").ids) == 3
    with pytest.raises(ConfigError, match="vocab_size must be at least 259"):
        Tokenizer.train(CAPTIONS, vocab_size=100)


def test_batch_is_cut_to_its_longest_row(trained: Tokenizer) -> None:
    tokens, lengths = trained.batch(["red", "red cube table"])
    assert tokens.shape[1] == int(lengths.max())
    assert int(tokens[0, -1]) == trained.pad_id
    wide = trained.replaced(pad_to="context").batch(["red"])[0]
    assert wide.shape == (1, 12)


def test_saved_is_loaded_equal(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == trained.fingerprint
    assert again.config == trained.config
    assert again.batch(CAPTIONS)[0].equal(trained.batch(CAPTIONS)[0])
    assert Tokenizer.from_file(tmp_path / "tokenizer.json", context_length=5).config == trained.config.replace(
        context_length=5
    )
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert theirs("red cube")["input_ids"] == trained.encode("red cube").ids
    assert theirs.pad_token_id == trained.pad_id


def test_saved_clip_is_loaded_equal(clip: Tokenizer, tmp_path: Path) -> None:
    clip.save(tmp_path)
    assert "pad_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text()), "it would be !, a word"
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == clip.fingerprint
    assert again.encode("A café’s “10”").ids == clip.encode("A café’s “10”").ids
    assert again.decode(again.encode("A dog").ids) == "a dog"


def test_settings_that_cannot_be_are_refused(trained: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"context_length must be more than the 2 special tokens; got 2"):
        trained.with_context_length(2)
    with pytest.raises(ConfigError, match=r"pad_id must be an id of the vocabulary"):
        trained.replaced(pad_id=10_000)
    assert [trained.id_of(t) for t in ("<pad>", "<end>", "<start>")] == [0, 1, 2], "transformers misreads an end of 2"


def test_a_config_of_another_kind_is_refused(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    kind = TokenizerConfig.kind()
    file.write_text(
        file.read_text().replace(kind, "diptych.core.image_format.ImageFormat").replace("context_length", "x")
    )
    with pytest.raises((DataError, ConfigError), match="must"):
        Tokenizer.load(tmp_path)
