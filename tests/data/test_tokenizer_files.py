"""Other libraries' tokenizers give here the ids that they give there."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from diptych.core.errors import DataError
from diptych.data.clip_vocabulary import clip_vocabulary
from diptych.data.tokenize import Tokenizer

WORDS = ["<unk>", "</s>", "a", "photo", "of", "dog"]


def words(folder: Path, **about: object) -> Path:
    file = tokenizers.Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    file.normalizer = normalizers.Lowercase()
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    file.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def test_a_file_that_pads_and_cuts_by_itself(tmp_path: Path) -> None:
    path = words(tmp_path) / "tokenizer.json"
    file = tokenizers.Tokenizer.from_file(str(path))
    file.enable_padding(pad_id=5, length=8)
    file.enable_truncation(3)
    file.save(str(path))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id) == (None, 1, 5)
    assert tokenizer.encode("a photo of a dog").ids == [2, 3, 4, 2, 5, 1]


def test_siglip_folder(tmp_path: Path) -> None:
    about = {
        "tokenizer_class": "SiglipTokenizer",
        "model_max_length": 64,
        "pad_token": {"content": "</s>"},
        "eos_token": "</s>",
    }
    tokenizer = Tokenizer.load(words(tmp_path, **about))
    tokens, lengths = tokenizer.batch(["A photo, of a DOG!"])
    assert tokens.shape == (1, 64)
    assert tokens[0, :7].tolist() == [2, 3, 4, 2, 5, 1, 1]
    assert lengths.tolist() == [6]
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (1, None, 1)


def test_any_tokenizer_json(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(words(tmp_path, model_max_length=1e30) / "tokenizer.json", context_length=3)
    assert tokenizer.encode("a photo of").ids == [2, 3, 1]
    assert (tokenizer.truncated, tokenizer.seen) == (1, 1)
    assert tokenizer.config.canonicalise == "none"
    assert tokenizer.vocab_size == len(WORDS)


def test_clip_in_both_of_transformers_forms(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    vocab, merges = clip_vocabulary()
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    slow.mkdir()
    (slow / "vocab.json").write_text(json.dumps(vocab))
    (slow / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges))
    theirs = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    theirs.save_pretrained(fast)
    text = "A photo of the Dog's café, no. 12"
    for folder in (slow, fast):
        ours = Tokenizer.load(folder)
        assert ours.encode(text).ids == theirs(text)["input_ids"]
        assert (ours.start_id, ours.end_id, ours.context_length) == (49406, 49407, 77)
    assert Tokenizer.load(fast).pad_id == 49407, "as its own files say"


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("tokenizer.json", "{", "must be a tokenizer.json"),
        ("vocab.json", "[]", "must hold a JSON object"),
        ("vocab.json", '{"a": 0}', "must be CLIP's kind"),
        ("nothing", "", "must be a tokenizer.json or a folder"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "merges.txt").write_text("") if name == "vocab.json" else None
    with pytest.raises(DataError, match=message):
        Tokenizer.load(tmp_path)
