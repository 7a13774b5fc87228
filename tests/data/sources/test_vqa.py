"""VQA's questions and answers."""

import json
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject, open_source
from diptych.data.sources.vqa import Vqa
from tests.data import benchmark_files
from tests.data.pictures import png


def test_a_record_an_image_with_all_that_people_said(tmp_path: Path) -> None:
    source = open_source(benchmark_files.vqa(tmp_path))
    assert isinstance(source, Vqa)
    first, second = source.records()
    assert isinstance(first, Record)
    assert [(s.modality, s.role, s.loss) for s in first.segments] == [
        ("image", "image", True),
        ("text", "question", False),
        ("text", "answer", True),
    ]
    assert first.segments[0].data == png(0)
    assert first.segments[1].texts == ("caption 0", "Is it red?")
    assert first.segments[2].texts == ("answer 0", "yes")
    assert first.meta == {
        "image": "COCO_val2014_000000000000.jpg",
        "image_id": 0,
        "answers_of": [["answer 0"] * 10, ["no", *["yes"] * 9]],
        "question_types": ["what", "is it"],
        "answer_types": ["other", "yes/no"],
        "kinds": ["other", "yes/no"],
        "question_ids": [0, 1],
    }
    assert second.key == "1"


def test_either_file_may_be_named(tmp_path: Path) -> None:
    path = benchmark_files.vqa(tmp_path)
    other = tmp_path / "v2_mscoco_val2014_annotations.json"
    assert list(open_source(other).records()) == list(open_source(path).records())
    other.rename(tmp_path / "told.json")
    with pytest.raises(DataError, match=r"must have its annotations beside it; .* annotations=FILE"):
        list(open_source(path).records())
    assert len(list(open_source(path, annotations="told.json").records())) == 2
    assert len(list(open_source(tmp_path / "told.json", questions=path.name).records())) == 2
    with pytest.raises(DataError, match="questions must be a file"):
        list(open_source(tmp_path / "told.json", questions="gone.json").records())


def change(path: Path, **values: object) -> None:
    """Set fields of the last question or annotation."""
    whole = json.loads(path.read_text())
    listed = whole.get("questions") or whole["annotations"]
    listed[-1].update(values)
    path.write_text(json.dumps(whole))


def test_questions_without_words_or_answers_are_rejected_by_name(tmp_path: Path) -> None:
    path = benchmark_files.vqa(tmp_path)
    other = tmp_path / "v2_mscoco_val2014_annotations.json"
    for change_it in (
        lambda: change(other, multiple_choice_answer="", answers=[]),
        lambda: change(other, question_id=99),
        lambda: change(path, question=" "),
    ):
        change_it()
        found = list(open_source(path).records())
        rejects = [r for r in found if isinstance(r, Reject)]
        assert [(r.key, r.reason) for r in rejects] == [("1-q11", "bad_question")]
        last = found[-1]
        assert isinstance(last, Record)
        assert last.segments[1].texts == ("caption 1",)
        assert len(last.meta["answers_of"]) == 1


def test_the_most_common_answer_where_the_file_says_none(tmp_path: Path) -> None:
    path = benchmark_files.vqa(tmp_path)
    said = benchmark_files.people("blue", "red", "red", "blue", "green")
    change(tmp_path / "v2_mscoco_val2014_annotations.json", multiple_choice_answer=None, answers=said)
    last = list(open_source(path).records())[-1]
    assert isinstance(last, Record)
    assert last.segments[2].texts[-1] == "green"


def test_a_question_asked_twice_stays_beside_its_answers_when_packed(tmp_path: Path) -> None:
    path = benchmark_files.vqa(tmp_path / "in")
    whole, told = (json.loads(p.read_text()) for p in (path, path.with_name("v2_mscoco_val2014_annotations.json")))
    whole["questions"].insert(2, {"image_id": 0, "question": "Is it red? ", "question_id": 77})
    told["annotations"].append({**told["annotations"][1], "question_id": 77, "answers": benchmark_files.people("yes")})
    path.write_text(json.dumps(whole))
    path.with_name("v2_mscoco_val2014_annotations.json").write_text(json.dumps(told))
    assert [r.key for r in open_source(path).records()] == ["0", "0-2", "1"]
    pack(open_source(path), tmp_path / "out", PackConfig(jobs=1, vocab_size=300, val=0.0))
    split = Dataset.open(tmp_path / "out").split("train")
    assert len(split) == 3
    for i in range(len(split)):
        questions, answers = split.pieces(i).texts
        assert len(questions.texts) == len(answers.texts) == len(split.meta(i)["answers_of"])
    assert split.meta(1)["answers_of"] == [["yes"] * 10]


def test_a_missing_image_or_folder(tmp_path: Path) -> None:
    path = benchmark_files.vqa(tmp_path, count=1, lost=1)
    assert [getattr(r, "reason", "") for r in open_source(path).records()] == ["", "file_not_found"]
    (tmp_path / "val2014" / "COCO_val2014_000000000000.jpg").unlink()
    with pytest.raises(DataError, match="image_root=DIR"):
        list(open_source(path).records())
    benchmark_files.pictures(tmp_path / "images", "000000000000.jpg")
    first = next(iter(open_source(path).records()))
    assert isinstance(first, Record)
    assert first.meta["image"] == "000000000000.jpg"
