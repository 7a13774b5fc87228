import dataclasses
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer

from diptych.core.errors import ConfigError
from diptych.models import packaged as module
from diptych.models.packaged import (
    PACKAGED,
    image_format,
    image_tower,
    packaged,
    packaged_files,
    packaged_tokenizer,
    text_tower,
)
from tests.data.fake_clients import FakeClients, clients, wheel

__all__ = ["clients"]

WORDS = [
    "a",
    "the",
    "red",
    "apple",
    "##s",
    "dog",
    "run",
    "##ning",
    "caf",
    "##e",
    "1",
    "##2",
    "3",
    ",",
    ".",
    "!",
    "'",
    "-",
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0456789?") + [f"##{c}" for c in "abcdfghijklmnopqrtuvwxyz013456789"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, "中", "##s'"]


def sentences(count: int = 300) -> list[str]:
    """Sentences of English and other words, odd spaces, accents, capitals and signs."""
    draw = random.Random(0)
    words = [
        "A",
        "the",
        "Red",
        "apples",
        "dogs",
        "running",
        "café",
        "Ünïcode",
        "123",
        "x-ray",
        "don't",
        "中文",
        "naïve",
    ]
    words += ["it's", "…", "🙂", "U.S.A.", "3.14", "\t", "  ", "#tag", "e-mail@x.org", "supercalifragilistic", "ﬁne"]
    return [" ".join(draw.choices(words, k=draw.randint(0, 14))) + draw.choice(["", ".", "!?"]) for _ in range(count)]


def bert_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """What transformers writes of a WordPiece tokenizer, inside a package."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    made = BertTokenizer(vocab={token: i for i, token in enumerate(VOCABULARY)}, model_max_length=16)
    made.save_pretrained(folder)
    return {f"some_package/data/{p.name}": p.read_bytes() for p in folder.iterdir()}


def test_a_wordpiece_tokenizer_is_read_from_its_package(
    clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = bert_tokenizer_files(tmp_path / "theirs")
    package = clients.serve("pip", "minilm-1.0-py3-none-any.whl", wheel(files))
    what = dataclasses.replace(PACKAGED["minilm"], package=package, files=tuple(files))
    monkeypatch.setitem(PACKAGED, "minilm", what)
    ours, theirs = packaged_tokenizer("minilm"), AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert ours.vocab_size == len(VOCABULARY)
    assert (ours.start_id, ours.end_id, ours.pad_id, ours.context_length) == (2, 3, 0, 16)
    texts = sentences()
    for text, found in zip(texts, ours.encode_all(texts), strict=True):
        whole = theirs(text, truncation=False)["input_ids"]
        assert found.ids == theirs(text, truncation=True, max_length=16)["input_ids"], text
        assert found.truncated == (len(whole) > 16)
    assert 3 not in ours.encode("a [SEP] dog").ids[1:-1]  # a text cannot bring a special token of its own


def test_other_members_are_passed_by(clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = clients.serve("pip", "lite-1.0-py3-none-any.whl", wheel({"x/w.pth": b"1", "x/__init__.py": b"raise"}))
    what = dataclasses.replace(PACKAGED["efficientnet_lite0"], package=package, weights="w.pth", files=("x/w.pth",))
    monkeypatch.setitem(PACKAGED, "efficientnet_lite0", what)
    with packaged_files("efficientnet_lite0") as folder:
        assert [p.name for p in folder.iterdir()] == ["w.pth"]
        assert (folder / "w.pth").read_bytes() == b"1"
    assert not folder.exists()


def test_settings_that_go_along() -> None:
    assert image_tower("efficientnet_lite0").pretrained == "efficientnet_lite0"
    assert image_format("efficientnet_lite0", 128).resolution == 128
    low, high = ((v / 255 - image_format("efficientnet_lite0").mean[0]) / (128 / 255) for v in (0, 255))
    assert (low, high) == (pytest.approx(-127 / 128), pytest.approx(1.0))
    assert (text_tower("minilm").pooling, text_tower("minilm").norm_position) == ("mean", "post")
    for what in PACKAGED.values():
        assert what.weights in [name.rpartition("/")[2] for name in what.files]
        assert what.licence


def test_mistakes_are_answered() -> None:
    with pytest.raises(
        ConfigError, match=r"must be one of efficientnet_lite0, minilm; got 'minlm'. Did you mean 'minilm'"
    ):
        packaged("minlm")
    for function, name in ((image_tower, "minilm"), (image_format, "minilm"), (text_tower, "efficientnet_lite0")):
        with pytest.raises(ConfigError, match=f"got '{name}', a"):
            function(name)
    with pytest.raises(ConfigError, match="must be a text tower's here"):
        packaged_tokenizer("efficientnet_lite0")


@pytest.mark.slow
@pytest.mark.network
def test_minilms_own_tokenizer_equals_transformers() -> None:
    with packaged_files("minilm") as folder:
        ours, theirs = module.packaged_tokenizer("minilm"), AutoTokenizer.from_pretrained(folder)
        assert ours.vocab_size == 30522
        texts = sentences(500)
        for text, found in zip(texts, ours.encode_all(texts), strict=True):
            assert found.ids == theirs(text, truncation=True, max_length=ours.context_length)["input_ids"], text
