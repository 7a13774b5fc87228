import copy

import pytest

from diptych.report.dataset_page import brief, dataset_page
from tests.report.fake_run import thumb

SPREAD = {
    "min": 8,
    "p5": 9,
    "median": 64,
    "p95": 100,
    "max": 128,
    "mean": 60.0,
    "edges": [8, 68, 128],
    "counts": [3, 4],
}
SUMMARY = {
    "path": "data/x",
    "fingerprint": "f",
    "source": "x.csv",
    "seen": 10,
    "kept": 7,
    "rejected": 3,
    "notes": {},
    "splits": {"train": {"records": 6, "bytes": 1000, "shards": 1}, "val": {"records": 1, "bytes": 100, "shards": 1}},
    "images": {"count": 7, "formats": {"png": 7}, "width": SPREAD, "height": SPREAD, "bytes": SPREAD},
    "captions": {
        "records": 7,
        "texts": 9,
        "characters": SPREAD,
        "alternatives": {"1": 5, "2": 2},
        "distinct": 5,
        "duplicate_share": 0.5,
        "top": [{"text": "a <cup>", "count": 3}],
        "tokens": {"context_length": 16, "vocab_size": 300, "measured": 9, "truncated_share": 0.25, **SPREAD},
    },
    "duplicate_images": {"distinct": 7, "records": 0, "share": 0.0},
    "rejects": [
        {
            "reason": "truncated",
            "count": 3,
            "examples": [{"key": "k1", "where": "x.csv:3", "message": "the file ends early"}],
        }
    ],
    "samples": [
        {
            "split": "train",
            "key": "k",
            "captions": ["a <cup>", "cup"],
            "width": 9,
            "height": 8,
            "jpeg": thumb((9, 9, 9)),
        }
    ],
}


def test_the_page_counts_shows_and_advises():
    html = dataset_page(SUMMARY)
    for words in (
        "a &lt;cup&gt; (+1 more) - 9 x 8",
        "50% of the records share",
        "25% of the captions are longer than 16",
        "truncated: 3",
        "x.csv:3",
        "median 64",
    ):
        assert words in html, words
    assert "http" not in html.replace("http-equiv", "")


def test_the_terminal_gets_the_same_in_few_lines():
    text = brief(SUMMARY)
    assert "7 records (train 6, val 1)" in text
    assert "8 to 128 of 16; 25.0% of the captions are cut" in text
    assert "3 truncated" in text


@pytest.mark.parametrize("lacking", ["tokens", "characters"])
def test_datasets_without_words_have_a_page(lacking):
    summary = copy.deepcopy(SUMMARY)
    summary["captions"][lacking] = None
    assert "Twelve samples" in dataset_page(summary)
    assert "7 records" in brief(summary)


def test_large_images_are_worth_a_word():
    summary = copy.deepcopy(SUMMARY)
    summary["images"]["width"] = {**SPREAD, "median": 4000}
    assert "--resize" in dataset_page(summary)
