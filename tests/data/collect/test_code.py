"""Functions with their docstrings, never run; pictures with the code that drew them."""

from pathlib import Path
from typing import Any

import pytest

from diptych.core.errors import ConfigError
from diptych.core.record import Record
from diptych.data.collect.collector import collector
from diptych.data.decode import decode_image
from diptych.data.drawing import draw
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject

SOURCE = '''# SPDX-License-Identifier: MIT
import os
open("ran", "w").write("this file was run")

@decorated
def add(a, b):
    """The sum of two numbers.

    In full.
    """
    return a + b

class Box:
    async def width(self):
        "How wide the box is."
        x = "\\d"
        return self.right - self.left

    def add(self): pass

def stub():
    """Does nothing at all."""

def inline(): "Is on one line"; return 1

def short():
    """Short."""
    return 1
'''


def read(path: Path, **settings: Any) -> dict[str, Record | Reject]:
    return {r.key: r for r in collector("code", str(path), **settings).records()}


def test_functions_and_their_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text(SOURCE)
    found = read(tmp_path)
    assert {k: r.reason for k, r in found.items() if isinstance(r, Reject)} == {
        "a.py/Box.add": "no_docstring",
        "a.py/stub": "no_body",
        "a.py/inline": "docstring_in_line",
        "a.py/short": "too_few_words",
    }
    add, width = found["a.py/add"], found["a.py/Box.width"]
    assert isinstance(add, Record)
    assert isinstance(width, Record)
    assert [(s.role, s.texts) for s in add.segments] == [
        ("docstring", ("The sum of two numbers.",)),
        ("code", ("@decorated\ndef add(a, b):\n    return a + b",)),
    ]
    assert width.segments[1].texts[0].startswith("async def width(self):\n    x =")
    assert add.meta["collected"] == {
        "collector": "code",
        "rule": "function",
        "origin": str(tmp_path / "a.py"),
        "place": "line 6",
        "licence": "MIT",
    }
    whole = read(tmp_path, docstring="whole")["a.py/add"]
    assert isinstance(whole, Record)
    assert whole.segments[0].texts[0].endswith("In full.")
    assert not (tmp_path / "ran").exists()


def test_files_that_cannot_be_parsed_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\0")
    (tmp_path / "deep.py").write_text("x = " + "(" * 3000 + ")" * 3000)
    (tmp_path / "huge.py").write_text("#" * (3 << 20))
    (tmp_path / "old.py").write_text("print 'x'")
    (tmp_path / "zero.py").write_bytes(b"x = 1\0")
    reasons = {k: r.reason for k, r in read(tmp_path).items() if isinstance(r, Reject)}
    assert reasons == {
        "binary.py": "bad_text",
        "deep.py": "not_python",
        "huge.py": "too_many_bytes",
        "old.py": "not_python",
        "zero.py": "not_python",
    }


def test_pictures_with_the_code_that_drew_them(tmp_path: Path) -> None:
    found = read(tmp_path, functions=False, drawings=3, charts=3, resolution=32)
    assert found == read(tmp_path, functions=False, drawings=3, charts=3, resolution=32)
    assert list(found) == [f"{rule}s/{n:09d}" for rule in ("drawing", "chart") for n in range(3)]
    first = found["drawings/000000000"]
    assert isinstance(first, Record)
    code = first.segments[1].texts[0]
    pixels = decode_image(first.segments[0].data).permute(1, 2, 0).numpy()
    assert pixels.tobytes() == draw(code, 32).tobytes()
    assert first.meta["language"] == "drawing"
    assert first.meta["collected"]["origin"] == "generated"


def test_packed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.py").write_text(SOURCE)
    source = collector("code", str(tmp_path / "in"), drawings=2)
    report = pack(source, tmp_path / "out", PackConfig(jobs=1, vocab_size=300))
    assert (report.seen, report.kept, report.rejected) == (8, 4, 4)


def test_nothing_to_collect_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be collected from something"):
        collector("code", str(tmp_path), functions=False)
