"""CLIP's vocabulary has its published size and ids, and nothing else is taken for it."""

import importlib.util
from pathlib import Path

import pytest

from diptych.core.errors import FetchError
from diptych.data.clip_vocabulary import END, START, byte_symbols, clip_vocabulary, read_merges


def test_sizes_and_ids() -> None:
    vocab, merges = clip_vocabulary()
    assert (len(vocab), len(merges)) == (49408, 48894)
    assert vocab[START] == 49406
    assert vocab[END] == 49407
    assert vocab["!"] == 0
    assert vocab["photo</w>"] == 1125  # "a photo of" is 320 1125 539 in every CLIP


def test_every_byte_has_its_own_printable_symbol() -> None:
    symbols = byte_symbols()
    assert len(set(symbols.values())) == len(symbols) == 256
    assert all(s.isprintable() and not s.isspace() for s in symbols.values())


def test_another_file_is_refused() -> None:
    with pytest.raises(FetchError, match=r"must have sha256 924691ac.*got .* Reinstall"):
        read_merges(b"not it")


@pytest.mark.network
def test_fetched_equals_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = clip_vocabulary()
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "open_clip" else find(name))
    assert clip_vocabulary() == expected
