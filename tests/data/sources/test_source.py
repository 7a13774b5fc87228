"""Finding the source behind a path, and reading files with care."""

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.data import sources
from diptych.data.sources.source import FromRecords, Reject, is_taken, look, open_source, read_file
from tests.data import benchmark_files
from tests.data.benchmark_files import write, write_lines
from tests.data.pictures import png


def test_what_is_not_there_or_not_known_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which is not there"):
        open_source(tmp_path / "nothing")
    with pytest.raises(DataError, match="must be on this machine"):
        open_source("https://example.com/pairs.csv")
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a folder with docx"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"a \.docx file"):
        open_source(tmp_path / "notes.docx")


def test_reading_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert read_file(tmp_path / "a.png", "k", 1000) == png()

    def reason(path: Path, limit: int = 1000) -> str:
        got = read_file(path, "k", limit)
        assert isinstance(got, Reject)
        assert got.key == "k"
        return got.reason

    assert reason(tmp_path / "a.png", 10) == "too_many_bytes"
    assert reason(tmp_path) == "not_a_file"
    assert reason(tmp_path / "gone") == "file_not_found"
    assert reason(tmp_path / "a\0b") == "unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "not_a_file"  # reading it would wait for ever


def test_a_look_is_quick_and_shallow(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.PNG").write_bytes(b"")
    (tmp_path / "top.csv").write_text("")
    (tmp_path / ".hidden").write_text("")
    found = look(tmp_path)
    assert found.names == {"top.csv"}
    assert found.suffixes == {"csv", "png"}
    assert len(look(tmp_path, entries=1).suffixes) == 1


def test_records_from_a_function() -> None:
    source = FromRecords(lambda: [Reject("a", "no.")], "mine")
    assert (source.name, source.where("a"), source.count()) == ("mine", "mine: a", None)
    assert list(source.records()) == list(source.records())


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def in_folder(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """The folder that a maker fills, instead of its file."""
    return lambda root: (make(root), root)[1]


FORMS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "COCO captions": ("coco", benchmark_files.coco),
    "COCO instances": ("coco", lambda r: benchmark_files.coco(r).with_name("instances_val2017.json")),
    "COCO, annotations first": (
        "coco",
        lambda r: write(r / "x.json", {"annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}], "images": []}),
    ),
    "COCO, many images": ("coco", lambda r: benchmark_files.coco(r, lost=3000)),
    "Karpathy": ("coco", benchmark_files.karpathy),
    "VQA questions": ("vqa", benchmark_files.vqa),
    "VQA annotations": ("vqa", lambda r: benchmark_files.vqa(r).with_name("v2_mscoco_val2014_annotations.json")),
    "SugarCrepe": ("foils", benchmark_files.sugarcrepe),
    "SugarCrepe's folder": ("foils", in_folder(benchmark_files.sugarcrepe)),
    "VALSE": ("foils", benchmark_files.valse),
    "ARO": ("foils", benchmark_files.aro),
    "Winoground": ("winoground", benchmark_files.winoground),
    "Winoground's folder": ("winoground", in_folder(benchmark_files.winoground)),
    "POPE": ("pope", benchmark_files.pope),
    "CLIP_benchmark": ("clip_benchmark", benchmark_files.clip_benchmark),
    "CLIP_benchmark's split": ("clip_benchmark", lambda r: benchmark_files.clip_benchmark(r, "retrieval") / "test"),
    "tars without a count": ("webdataset", lambda r: benchmark_files.tar(r / "a" / "0.tar", ("x.jpg", png())).parent),
    "Flickr30k": ("table", lambda r: text(r / "results.csv", "image_name| comment_number| comment\na.jpg| 0| A .\n")),
    "Flickr8k": ("table", lambda r: text(r / "captions.txt", "image,caption\na.jpg,A .\n")),
    "labels": ("table", lambda r: text(r / "labels.csv", "image,label,group\na.jpg,cat,x\n")),
    "rows": ("table", lambda r: write_lines(r / "t.jsonl", {"image": "a.jpg", "text": "A.", "label": "yes"})),
    "metadata": ("table", lambda r: write_lines(r / "metadata.jsonl", {"file_name": "a.jpg", "text": "A."}).parent),
    "images with sidecars": (
        "folder",
        lambda r: (
            benchmark_files.pictures(r, "a.jpg"),
            write(r / "a.json", {"caption": "A.", "foil": "B.", "image": "a"}),
        )[0],
    ),
    "COCO's folder": ("folder", lambda r: benchmark_files.coco(r).parent.parent),
    "a page": ("pages", lambda r: write_lines(r / "p.jsonl", {"texts": ["A", None], "images": [None, "a.jpg"]})),
    "a talk": (
        "conversations",
        lambda r: write(
            r / "c.json", [{"image": "a.jpg", "question_id": 1, "text": "", "label": "yes", "conversations": []}]
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised_by_one_source_alone(tmp_path: Path, form: str) -> None:
    mine, make = FORMS[form]
    found = look(make(tmp_path))
    names = [m.name for m in pkgutil.iter_modules(sources.__path__) if m.name != "source"]
    modules = {name: importlib.import_module(f"{sources.__name__}.{name}") for name in names}
    assert [name for name, module in modules.items() if module.recognises(found)] == [mine]
    assert is_taken(found) == (mine not in ("table", "folder", "webdataset"))
