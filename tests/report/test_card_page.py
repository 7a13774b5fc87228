"""The card's page: it is whole, loads nothing, and nothing that a record says becomes markup."""

import re
from typing import Any

from diptych.report.card_page import brief, card_page

EVIL = "<script>alert(1)</script>"
SPREAD = {"min": 1, "p5": 1, "median": 2, "p95": 4, "max": 4, "mean": 2.0, "edges": [1, 2, 4], "counts": [3, 1]}
PIXEL = "iVBORw0KGgo="


def example(**other: Any) -> dict[str, Any]:
    said = {"split": "train", "key": EVIL, "uid": "00", "captions": [EVIL, "b"], "width": 3, "height": 4}
    return {**said, "jpeg": PIXEL, **other}


def values(**other: Any) -> dict[str, Any]:
    reason = {"reason": "short_caption", "count": 7, "examples": [example(), example(jpeg="")]}
    kept = {
        **{
            "path": f"/x/{EVIL}",
            "kept": 3,
            "here": 3,
            "seen": 10,
            "splits": ["train"],
            "steps": [],
            "examples": [example()],
        },
        **{name: {"whole": SPREAD, "kept": SPREAD} for name in ("words", "short_side")},
        "filters": [{"name": "caption_length", "settings": {"min_words": 2}, "reasons": [reason]}],
    }
    summary = {
        **{"source": EVIL, "kept": 10, "seen": 12, "samples": [example()]},
        "splits": {"train": {"records": 8, "bytes": 100, "shards": 1}, "test": {"records": 2, "bytes": 9, "shards": 1}},
        "images": {"formats": {"png": 10}, "width": SPREAD},
        "captions": {
            **{"texts": 20, "distinct": 9, "duplicate_share": 0.1, "characters": SPREAD, "alternatives": {"2": 10}},
            "top": [{"text": EVIL, "count": 2}],
        },
        "duplicate_images": {"share": 0.2},
        "rejects": [
            {"reason": "broken", "count": 1, "examples": [{"key": "k", "where": "w", "message": EVIL}]},
            {"reason": "opt_out_noai", "count": 1, "examples": [{"key": EVIL, "where": EVIL, "message": "no"}]},
        ],
    }
    origins = {
        **{"read": 10, "of": 10, "texts": 20, "synthetic": 5, "licences": {EVIL: 6, "nothing said": 4}},
        **{"collectors": {"html": 10}, "hosts": {EVIL: 1}, "opt_outs": {"noai": 2}, "languages": {}},
        "scripts": {"latin": 10},
    }
    overlap = {"one": "train", "other": "test", "images": 1, "captions": 0, "of": 2, "examples": [example()]}
    group = {"words": [EVIL, "dog"], "count": 4, "share": 0.4, "kept": 0.5, "examples": [example()]}
    return {
        **{"path": f"/data/{EVIL}", "summary": summary, "chosen": kept, "overlap": [overlap], "origins": origins},
        "repeats": [{"count": 3, "examples": [example()]}],
        "clusters": [group, {**group, "words": []}],
        **other,
    }


def test_everything_is_shown_and_escaped() -> None:
    page = card_page(values())
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    for said in ("short_caption", "caption_length", "-7", "opt_out_noai", "noai", "latin", "30.0%", "min_words"):
        assert said in page
    assert "1 images of test are in train too" in page
    assert "25.0%" in page  # synthetic captions
    assert page.index("asked not to be used") < page.index("broken")
    loads = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(target.startswith(("#", "data:image/")) for target in loads)


def test_without_a_curation_the_whole_is_shown() -> None:
    group = {"words": ["dog"], "count": 4, "share": 0.4, "kept": None, "examples": [example()]}
    page = card_page(values(chosen=None, clusters=[group]))
    assert "Twelve records" in page
    assert "of these chosen" not in page
    assert "Dropped" not in page


def test_a_combination_shows_its_steps() -> None:
    found = values()
    found["chosen"] |= {"filters": [], "steps": [{"step": "A", "records": 9}, {"step": f"minus {EVIL}", "records": 3}]}
    page = card_page(found)
    assert "records left" in page
    assert EVIL not in page


def test_nothing_said_of_licences_is_a_note() -> None:
    found = values()
    found["origins"] |= {"licences": {"nothing said": 10}, "opt_outs": {}}
    assert "No record says under which licence" in card_page(found)


def test_a_brief_is_for_the_terminal() -> None:
    said = brief(values())
    assert "10 records (train 8, test 2)" in said
    assert "caption_length dropped 7 short_caption" in said
    assert "1 images and 0 captions of test in train" in said
