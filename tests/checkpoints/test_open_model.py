"""A model by a few words: ours by its path, others' by their format, with equal vectors and a stable fingerprint."""

import pytest
import torch

from diptych.checkpoints.convert import convert_to
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.open_model import open_model, parse
from diptych.core.errors import CheckpointError, ConfigError
from tests.checkpoints.tiny import TEXTS, clip_config, trained


def test_ours_and_others_by_the_same_words(tmp_path):
    mine = trained(clip_config())
    save_pretrained(tmp_path / "mine", mine.model, mine.tokenizer)
    ours = open_model(str(tmp_path / "mine"))
    assert ours.fingerprint == load(tmp_path / "mine").fingerprint
    for word, format in (("openclip", "open_clip"), ("hf", "transformers")):
        convert_to(format, tmp_path / "mine", tmp_path / word)
        found = open_model(f"{word}:{tmp_path / word}")
        assert torch.equal(found.embed_text(TEXTS), ours.embed_text(TEXTS))
        assert found.name == f"{word}-{word}"
        assert len(found.fingerprint) == 32
        assert open_model(f"{word}:{tmp_path / word}").fingerprint == found.fingerprint


def test_the_parts_of_the_words(tmp_path):
    assert parse("runs/a") == ("", tmp_path.__class__("runs/a"), "a")
    colon = tmp_path / "run:1"
    colon.mkdir()
    assert parse(str(colon)).format == ""
    with pytest.raises(ConfigError, match=r"must be a run's folder, or openclip:PATH.*got 'timm:x'"):
        parse("timm:x")
    with pytest.raises(CheckpointError, match="must lie on this machine"):
        parse(f"hf:{tmp_path / 'absent'}")
