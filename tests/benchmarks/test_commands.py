"""Every benchmark from end to end at its smallest size. The peer runs on $BENCH_PYTHON, .venv-bench, or this Python."""

import importlib
import os
import sys
from pathlib import Path

import pytest
from benchmarks.turns import PEER_PYTHON, ROOT

from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import open_source

PARTS = {  # arguments beyond --tiny
    "step": ["--compile", "off"],
    "accumulate": [],
    "loss_memory": ["--losses", "sigmoid"],
    "zero_shot_build": [],
    "retrieval_memory": [],
    "scaling": [],
    "input": ["--sources", "folder", "--decode", "full"],
}
WITH_SHARDS = ("locked", "time_to_accuracy")  # the first needs the webdataset that open_clip asks for


@pytest.fixture(autouse=True)
def _interpreter(tmp_path, monkeypatch):
    words = tmp_path / "captions.txt"  # the real ones are fetched
    words.write_text("".join(f"a caption, number {i}\n" for i in range(64)))
    monkeypatch.setenv("BENCH_CAPTIONS", str(words))
    if not os.environ.get("BENCH_PYTHON") and not PEER_PYTHON.exists():
        monkeypatch.setenv("BENCH_PYTHON", sys.executable)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_benchmark_runs_at_its_smallest(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    check(name, PARTS[name])


@pytest.mark.slow
def test_locked_runs_at_its_smallest(tmp_path, monkeypatch):
    if not PEER_PYTHON.exists():
        pytest.skip("needs the peer of `make bench`")
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    check("locked", [])


@pytest.mark.slow
def test_the_race_runs_at_its_smallest(tmp_path):
    from benchmarks.make_material import photo

    source = tmp_path / "source"
    for split, count in (("train", 40), ("test", 12)):
        (source / split).mkdir(parents=True)
        for i in range(count):
            photo(i + 100 * (split == "test"), 48, 48).save(source / split / f"{i:03d}.png")
            (source / split / f"{i:03d}.txt").write_text(f"{split} picture number {i}")
    pack(open_source(str(source)), tmp_path / "data", PackConfig(val=0.0, vocab_size=300))
    result = check("time_to_accuracy", ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")])
    assert "R@1" in result.body
    assert (tmp_path / "work" / "state.json").exists()


def check(name: str, more: list[str]):
    module = importlib.import_module(f"benchmarks.{name}")
    result = module.measure(module.arguments(["--tiny", "--rounds", "1", "--threads", "1", *more]))
    text = result.markdown()
    assert f"## {name}, " in text
    assert result.versions
    for comparison in result.comparisons:
        assert comparison.ours
        assert all(v > 0 for s in (*comparison.ours, *comparison.theirs) for v in s.values)
    return result


def test_every_benchmark_has_a_command_and_a_line_in_the_readme_and_the_makefile():
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for name in (*PARTS, *WITH_SHARDS, "gpu", "help"):
        assert f"| `{name}` |" in readme
        assert f"{name}.py" in makefile
        assert "def main() -> None:" in (ROOT / "benchmarks" / f"{name}.py").read_text()


def test_files_are_small_rooms():
    for path in Path(ROOT / "benchmarks").rglob("*.py"):
        assert len(path.read_text().splitlines()) < 400, path
