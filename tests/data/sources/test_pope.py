"""POPE's questions."""

from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.sources.pope import Pope
from diptych.data.sources.source import Reject, open_source
from tests.data import benchmark_files
from tests.data.pictures import png


def test_questions_of_an_image_are_one_record(tmp_path: Path) -> None:
    source = open_source(benchmark_files.pope(tmp_path, "adversarial"))
    assert isinstance(source, Pope)
    _, second = source.records()
    assert isinstance(second, Record)
    assert (second.key, second.segments[0].data) == ("000000003", png(1))
    assert [(s.role, s.texts, s.loss) for s in second.segments[1:]] == [
        ("question", ("caption 1", "Is there a cat in the image?"), False),
        ("answer", ("yes", "no"), True),
    ]
    assert second.meta == {
        "image": f"COCO_val2014_{1:012d}.jpg",
        "category": "adversarial",
        "kinds": ["adversarial"] * 2,
        "question_ids": [3, 4],
    }


def row(text: str = "Is there?", label: object = "yes", **more: object) -> dict[str, object]:
    return {"question_id": 1, "image": "a.jpg", "text": text, "label": label, **more}


def test_categories_and_repeated_questions_part_records(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.jpg")
    rows = [row(category="random"), row(category="popular"), row("Is it?", category="popular"), row(category="popular")]
    found = list(open_source(benchmark_files.write_lines(tmp_path / "all.jsonl", *rows)).records())
    assert [(r.meta["category"], r.segments[1].texts) for r in found if isinstance(r, Record)] == [
        ("random", ("Is there?",)),
        ("popular", ("Is there?", "Is it?")),
        ("popular", ("Is there?",)),
    ]
    path = benchmark_files.write_lines(tmp_path / "mine.jsonl", row())
    for options, category in (({}, "pope"), ({"category": "odd"}, "odd")):
        (one,) = open_source(path, **options).records()
        assert isinstance(one, Record)
        assert one.meta["category"] == category


def test_rows_that_lack_something(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.jpg")
    rows = [row(), row("Else?", "perhaps"), row(" "), {**row("Gone?"), "image": "b.jpg"}, row("Good?", "No ")]
    found = list(open_source(benchmark_files.write_lines(tmp_path / "r.json", *rows)).records())
    assert [getattr(r, "reason", "") for r in found] == ["no_label", "bad_row", "", "file_not_found", ""]
    last = found[-1]
    assert isinstance(last, Record)
    assert last.segments[2].texts == ("no",)


def test_llavas_list_has_no_answers(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.jpg")
    bare = {"question_id": 0, "image": "a.jpg", "text": "Is there?", "category": "adversarial"}
    (found,) = open_source(benchmark_files.write_lines(tmp_path / "llava_pope_test.jsonl", bare)).records()
    assert isinstance(found, Reject)
    assert "take coco_pope_random.json" in found.message


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image_root=DIR"):
        list(open_source(benchmark_files.pope(tmp_path, count=0, lost=2)).records())
