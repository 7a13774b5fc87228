import io
import json
from pathlib import Path

import pytest
from PIL import Image

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.corpora import corpus as corpora
from diptych.data.corpora.easy_vqa import KINDS, EasyVqa, EasyVqaConfig
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject
from tests.data.fake_clients import FakeClients, wheel


def _png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


TRAIN = [
    ["what color is the shape?", "red", 0],
    ["is there a circle?", "yes", 0],
    ["is there not a circle?", "no", 0],
    ["does the image contain a rectangle?", "no", 0],
    ["what shape is present?", "circle", 2],
    ["is there a circle?", "yes", 2],
]
TEST = [["is there a circle?", "no", 0], ["what shape is this?", "gravel", 1]]


def _serve(clients: FakeClients, patch: pytest.MonkeyPatch, train: object = TRAIN) -> None:
    files = {f"easy_vqa/data/train/images/{i}.png": _png(i) for i in (0, 2, 10, 11)}
    files |= {f"easy_vqa/data/test/images/{i}.png": _png(100 + i) for i in range(2)}
    files |= {
        "easy_vqa/data/train/questions.json": json.dumps(train).encode(),
        "easy_vqa/data/test/questions.json": json.dumps(TEST).encode(),
        "easy_vqa/__init__.py": b"raise SystemExit",
    }
    patch.setattr(EasyVqa, "packages", (clients.serve("pip", "easy_vqa-1.0-py3-none-any.whl", wheel(files)),))


def test_a_record_a_picture_with_its_questions(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(clients, monkeypatch)
    found = list(EasyVqaConfig(val=0.0).build().records())
    assert [r.key for r in found] == ["train-0", "train-2", "train-10", "train-11", "test-0", "test-1"]
    first = found[0]
    assert isinstance(first, Record)
    image, question, answer = first.segments
    assert (image.role, question.role, answer.role) == ("image", "question", "answer")
    assert (question.loss, answer.loss) == (False, True)
    assert question.texts == tuple(q for q, _, i in TRAIN if i == 0)
    assert answer.texts == ("red", "yes", "no", "no")
    assert first.meta == {"split": "train", "kinds": ["colour", "yes or no", "yes or no", "yes or no"]}
    reasons = {r.key: r.reason for r in found if isinstance(r, Reject)}
    assert reasons == {"train-10": "no_question", "train-11": "no_question", "test-1": "unknown_answer"}


def test_it_is_packed_with_its_answers_beside(
    clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _serve(clients, monkeypatch)
    path = corpora.get("easy_vqa", tmp_path / "out", PackConfig(val=0.0, jobs=1, tokenizer="none"), val=0.0)
    assert (path / "answers.txt").read_text().split() == sorted(KINDS)
    assert len(KINDS) == 13
    splits = Dataset.open(path).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "test": 1}
    texts = [s.texts for s in splits["train"].record(0).segments if s.modality == "text"]
    assert texts == [tuple(q for q, _, i in TRAIN if i == 0), ("red", "yes", "no", "no")]


def test_some_training_pictures_are_held_out() -> None:
    source = EasyVqaConfig(val=0.1).build()
    splits = [source._split("train", i) for i in range(4000)]
    assert splits.count("val") == pytest.approx(400, abs=60)
    assert {source._split("test", i) for i in range(10)} == {"test"}


def test_broken_questions_are_answered(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(clients, monkeypatch, train=[["half"]])
    with pytest.raises(DataError, match=r"train/questions.json must hold lists of question, answer and picture"):
        list(EasyVqaConfig().build().records())
