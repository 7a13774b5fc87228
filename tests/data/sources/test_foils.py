"""Right captions beside wrong ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.decode import decode_image
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.foils import Foils
from diptych.data.sources.source import Reject, Source, open_source
from tests.data import benchmark_files
from tests.data.pictures import png


def told(source: Source) -> list[object]:
    """Of each record (key, captions, test, distractors), of each reject its reason."""
    assert isinstance(source, Foils)
    return [
        r.reason if isinstance(r, Reject) else (r.key, r.segments[1].texts, r.meta["test"], r.meta["distractors"])
        for r in source.records()
    ]


def test_sugarcrepe(tmp_path: Path) -> None:
    path = benchmark_files.sugarcrepe(tmp_path)
    assert told(open_source(path)) == [
        (str(2 * i), (f"caption {i}",), "swap_obj", [f"wrong swap_obj {i}"]) for i in range(3)
    ]
    first = next(iter(open_source(path).records()))
    assert isinstance(first, Record)
    assert first.segments[0].data == png(0)
    assert first.meta["image"] == f"{0:012d}.jpg"


def test_a_folder_of_tests(tmp_path: Path) -> None:
    for test in ("swap_obj", "add_att"):
        benchmark_files.sugarcrepe(tmp_path, test, count=1)
    (tmp_path / "notes.json").write_text('{"about": "the data"}')
    assert told(open_source(tmp_path)) == [
        ("add_att/0", ("caption 0",), "add_att", ["wrong add_att 0"]),
        ("swap_obj/0", ("caption 0",), "swap_obj", ["wrong swap_obj 0"]),
    ]


def test_a_caption_in_two_tests_is_packed_twice(tmp_path: Path) -> None:
    for test in ("swap_obj", "add_att"):
        benchmark_files.sugarcrepe(tmp_path / "in", test)
    report = pack(open_source(tmp_path / "in"), tmp_path / "out", PackConfig(jobs=1, vocab_size=300))
    assert (report.kept, report.rejected) == (6, 0)


def test_agrees_with_clip_benchmark(tmp_path: Path) -> None:
    theirs = pytest.importorskip("clip_benchmark.datasets.sugar_crepe", exc_type=ImportError)
    path = benchmark_files.sugarcrepe(tmp_path)
    data = theirs.SugarCrepe(str(tmp_path / "val2017"), str(path))
    ours = list(open_source(path).records())
    assert len(ours) == len(data)
    for record, (image, (right, wrong)) in zip(ours, data, strict=True):
        assert isinstance(record, Record)
        assert (record.segments[1].texts, record.meta["distractors"]) == ((right,), [wrong])
        seen = decode_image(record.segments[0].data).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(seen, np.asarray(image.convert("RGB")))


def test_valse_counts_the_judges_votes(tmp_path: Path) -> None:
    path = benchmark_files.valse(tmp_path)
    rest = [(f"actions_test_{i}", (f"caption {i}",), "actant-swap", [f"wrong {i}"]) for i in range(3)]
    assert told(open_source(path)) == [*rest[:2], "few_votes"]
    assert told(open_source(path, votes=0)) == rest
    assert [t[2] for t in told(open_source(path, votes=0, test="swap"))] == ["swap"] * 3  # type: ignore[index]
    first = next(iter(open_source(path).records()))
    assert isinstance(first, Record)
    assert first.meta["linguistic_phenomena"] == "actions"


def test_aro_shows_the_box_alone(tmp_path: Path) -> None:
    path = benchmark_files.aro(tmp_path)
    first, _ = open_source(path).records()
    assert isinstance(first, Record)
    assert (first.segments[1].texts, first.meta["distractors"]) == (("caption 1",), ["wrong 1"])
    assert (first.meta["test"], first.meta["group"]) == ("visual_genome_attribution", "white_old")
    rows = json.loads(path.read_text())
    path.write_text(
        json.dumps([{**{k: v for k, v in r.items() if k != "attributes"}, "relation_name": "on"} for r in rows])
    )
    assert [r.meta["group"] for r in open_source(path).records() if isinstance(r, Record)] == ["on", "on"]
    whole = decode_image(png(0))
    np.testing.assert_array_equal(decode_image(first.segments[0].data), whole[:, 0:8, 8:24])
    whole_again, _ = open_source(path, crop=False).records()
    assert isinstance(whole_again, Record)
    assert whole_again.segments[0].data == png(0)


def test_a_box_outside_of_its_image(tmp_path: Path) -> None:
    path = benchmark_files.aro(tmp_path)
    rows = json.loads(path.read_text())
    rows[0]["bbox_x"], rows[1]["image_path"] = 400, "gone.jpg"
    path.write_text(json.dumps(rows))
    assert told(open_source(path)) == ["bad_box", "file_not_found"]
    (tmp_path / "images" / "1.jpg").write_bytes(b"no image")
    assert told(open_source(path)) == ["not_an_image", "file_not_found"]


def test_orders(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.jpg")
    rows = [{"image": "a.jpg", "caption_options": ["right", "wrong", "worse"]}]
    for path in (
        benchmark_files.write(tmp_path / "orders.json", rows),
        benchmark_files.write_lines(tmp_path / "orders.jsonl", *rows),
    ):
        assert told(open_source(path)) == [("000000001", ("right",), "orders", ["wrong", "worse"])]


def test_examples_that_lack_something(tmp_path: Path) -> None:
    benchmark_files.pictures(tmp_path, "a.jpg")
    rows = [
        {"image": "a.jpg", "caption": "one", "foils": ["two"]},
        {"image": "a.jpg", "caption": " ", "foils": ["two"]},
        {"image": "a.jpg", "caption": "one", "foils": []},
        {"caption": "one", "foils": ["two"]},
        7,
    ]
    found = told(open_source(benchmark_files.write(tmp_path / "t.json", rows)))
    assert found[1:] == ["no_caption", "no_caption", "no_image", "bad_json"]
    path = benchmark_files.write(tmp_path / "u.json", {"1": rows[0], "2": {**rows[0], "image": "b.jpg"}})  # type: ignore[dict-item]
    assert told(open_source(path))[1:] == ["file_not_found"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match="image_root=DIR"):
        told(open_source(path))
