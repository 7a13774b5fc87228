"""Conversations as LLaVA and as chat models write them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.conversations import Conversations
from diptych.data.sources.source import Reject, open_source
from diptych.data.sources.table import Table
from tests.data.pictures import png


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def read(tmp_path: Path, *rows: Any, **options: Any) -> list[Record | Reject]:
    (tmp_path / "talks.json").write_text(json.dumps(list(rows)))
    source = open_source(tmp_path / "talks.json", **options)
    assert isinstance(source, Conversations)
    return list(source.records())


def told(item: Record | Reject) -> Any:
    """A record's segments in short: "3?" an image, (text, loss) a turn."""
    if isinstance(item, Reject):
        return item.reason
    names = {png(i): i for i in range(3)}
    return [names[s.data] if s.modality == "image" else (s.role, s.texts[0], s.loss) for s in item.segments]


def test_llava(tmp_path: Path) -> None:
    turns = [human("<image>\nWhat is it?"), gpt("A fox."), human("And now?"), gpt("A hen.")]
    (item,) = read(tmp_path, {"id": "7", "image": "1.png", "conversations": turns, "n": 3})
    assert told(item) == [
        1,
        ("question", "What is it?", False),
        ("answer", "A fox.", True),
        ("question", "And now?", False),
        ("answer", "A hen.", True),
    ]
    assert isinstance(item, Record)
    assert (item.key, item.meta) == ("000000001", {"id": "7", "n": 3})


def test_tags_stand_anywhere_and_rows_may_have_none(tmp_path: Path) -> None:
    first = {"image": ["0.png", "2.png"], "conversations": [human("from <image> to <image>?"), gpt("Two.")]}
    second = {"conversations": [{"from": "system", "value": "Be kind."}, human("Hello"), gpt("Hi")]}
    third = {"image": "0.png", "conversations": [human("Draw!"), gpt("There: <image>")]}
    found = read(tmp_path, first, second, third)
    assert told(found[0]) == [
        ("question", "from", False),
        0,
        ("question", "to", False),
        2,
        ("question", "?", False),
        ("answer", "Two.", True),
    ]
    assert told(found[1]) == [("system", "Be kind.", False), ("question", "Hello", False), ("answer", "Hi", True)]
    assert told(found[2]) == [("question", "Draw!", False), ("answer", "There:", True), 0]


def test_chat_models(tmp_path: Path) -> None:
    link = "data:image/png;base64," + base64.b64encode(png(2)).decode()
    content = [
        {"type": "image"},
        {"type": "text", "text": "and"},
        {"type": "image_url", "image_url": {"url": link}},
        {"type": "text", "text": "what?"},
    ]
    first = {
        "images": ["1.png"],
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Two."}],
    }
    second = {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "0.png"}, "What?"]},
            {"role": "assistant", "content": [{"type": "text", "text": "One."}]},
        ]
    }
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, (first, second))))
    source = open_source(tmp_path / "talks.jsonl")
    assert isinstance(source, Conversations)
    a, b = source.records()
    assert told(a) == [1, ("question", "and", False), 2, ("question", "what?", False), ("answer", "Two.", True)]
    assert told(b) == [0, ("question", "What?", False), ("answer", "One.", True)]


def test_turns_may_be_announced(tmp_path: Path) -> None:
    row = {"image": "0.png", "conversations": [human("<image>What?"), gpt("One.")]}
    (item,) = read(tmp_path, row, before_question="Question:", before_answer="Answer:")
    assert told(item) == [
        ("prompt", "Question:", False),
        0,
        ("question", "What?", False),
        ("prompt", "Answer:", False),
        ("answer", "One.", True),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": [human("<image> what?"), gpt("a")]}, "tag_without_image"),
        ({"image": "0.png", "conversations": [human("what?"), gpt("a")]}, "image_without_tag"),
        ({"image": ["0.png", "1.png"], "conversations": [human("<image> what?"), gpt("a")]}, "image_without_tag"),
        ({"image": "gone.png", "conversations": [human("<image> what?"), gpt("a")]}, "file_not_found"),
        ({"image": "http://x/a.png", "conversations": [human("<image> what?"), gpt("a")]}, "is_url"),
        ({"conversations": [human("what?")]}, "no_answer"),
        ({"conversations": [human("what?"), gpt("  ")]}, "empty_turn"),
        ({"conversations": [human("what?"), {"from": "crowd", "value": "a"}]}, "unknown_speaker"),
        ({"conversations": [human("what?"), "a"]}, "bad_turn"),
        ({"conversations": [human("what?"), {"from": "gpt", "value": 3}]}, "bad_turn"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "bad_turn"),
        ({"conversations": []}, "no_turns"),
        ({"other": 1}, "no_turns"),
        (7, "bad_json"),
    ],
)
def test_what_is_wrong_has_a_name(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"conversations": [human("what?"), gpt("a")]}
    first, item, last = read(tmp_path, good, row, good)
    assert told(item) == reason
    assert isinstance(item, Reject)
    assert item.message.endswith(".")
    assert item.where.endswith("item 2")
    assert isinstance(first, Record)
    assert isinstance(last, Record)


def test_a_table_of_pairs_stays_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "0.png", "caption": "a", "conversation": "none"}\n')
    assert isinstance(open_source(tmp_path / "t.jsonl"), Table)


def test_they_are_packed_whole(tmp_path: Path) -> None:
    rows = [{"image": f"{i}.png", "conversations": [human("<image>\nWhat?"), gpt(f"Number {i}.")]} for i in range(3)]
    (tmp_path / "talks.json").write_text(json.dumps(rows))
    pack(open_source(tmp_path / "talks.json"), tmp_path / "out", PackConfig(jobs=1, val=0.0, vocab_size=300))
    split = Dataset.open(tmp_path / "out").splits["train"]
    assert [told(split.record(i))[0] for i in range(3)] == [0, 1, 2]
    assert split.pieces(2).texts[1].texts == ("Number 2.",)
