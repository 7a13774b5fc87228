"""Pages as OBELICS and MMC4 write them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.pages import Pages
from diptych.data.sources.source import Reject, open_source
from diptych.data.sources.table import Table
from tests.data.pictures import png


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))


def read(tmp_path: Path, *rows: Any) -> list[Record | Reject]:
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(tmp_path / "pages.jsonl")
    assert isinstance(source, Pages)
    return list(source.records())


def told(item: Record | Reject) -> Any:
    if isinstance(item, Reject):
        return item.reason
    names = {png(i): i for i in range(3)}
    assert all(s.loss for s in item.segments)
    return [names[s.data] if s.modality == "image" else s.texts[0] for s in item.segments]


def test_obelics(tmp_path: Path) -> None:
    data = base64.b64encode(png(2)).decode()
    first = {
        "texts": [None, "Before.", None, "After.", "And more.", " "],
        "images": ["0.png", None, {"bytes": data}, None, None, None],
        "general_metadata": '{"url": "x"}',
        "metadata": "[null]",
    }
    second = {"texts": ["Words alone.", None], "images": [None, None]}
    found = read(tmp_path, first, second)
    assert told(found[0]) == [0, "Before.", 2, "After.\nAnd more."]
    assert told(found[1]) == ["Words alone."]
    assert isinstance(found[0], Record)
    assert found[0].meta == {"general_metadata": '{"url": "x"}'}


def test_mmc4(tmp_path: Path) -> None:
    row = {
        "text_list": ["One.", "Two.", "Three."],
        "image_info": [
            {"image_name": "1.png", "matched_text_index": 2, "raw_url": "http://x"},
            {"image_name": "0.png", "matched_text_index": 0},
            {"image_name": "2.png", "matched_text_index": 2},
        ],
        "similarity_matrix": [[0.1, 0.2, 0.3]],
        "url": "http://page",
    }
    (item,) = read(tmp_path, row)
    assert told(item) == [0, "One. Two.", 1, 2, "Three."]
    assert isinstance(item, Record)
    assert item.meta == {"url": "http://page"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"texts": ["a"], "images": [None, "0.png"]}, "lists_differ"),
        ({"texts": ["a"]}, "lists_differ"),
        ({"texts": ["a"], "images": ["0.png"]}, "text_and_image"),
        ({"texts": [3, None], "images": [None, "0.png"]}, "bad_text"),
        ({"texts": ["a", None], "images": [None, "gone.png"]}, "file_not_found"),
        ({"texts": ["a", None], "images": [None, "https://x/a.png"]}, "is_url"),
        ({"text_list": ["a"], "image_info": [{"image_name": "0.png", "matched_text_index": 1}]}, "image_without_text"),
        ({"text_list": ["a"], "image_info": [{"image_name": "0.png"}]}, "image_without_text"),
        ({"text_list": ["a"], "image_info": [{"matched_text_index": 0}]}, "no_image"),
        ({"text_list": "a", "image_info": []}, "lists_differ"),
    ],
)
def test_what_is_wrong_has_a_name(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"texts": ["a", None], "images": [None, "0.png"]}
    _, item, last = read(tmp_path, good, row, good)
    assert told(item) == reason
    assert isinstance(item, Reject)
    assert item.message.endswith(".")
    assert item.where.endswith("line 2")
    assert isinstance(last, Record)


def test_a_table_whose_captions_are_texts_stays_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"images": ["0.png"], "texts": ["a caption"]}\n')
    source = open_source(tmp_path / "t.jsonl")
    assert isinstance(source, Table)
    assert len(list(source.records())) == 1


def test_they_are_packed_whole(tmp_path: Path) -> None:
    rows = [{"texts": [f"Number {i}.", None, "End."], "images": [None, f"{i}.png", None]} for i in range(3)]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pack(open_source(tmp_path / "pages.jsonl"), tmp_path / "out", PackConfig(jobs=1, val=0.0, vocab_size=300))
    split = Dataset.open(tmp_path / "out").splits["train"]
    assert [told(split.record(i)) for i in range(3)] == [[f"Number {i}.", i, "End."] for i in range(3)]
    assert split.pieces(0).images == (1,)
