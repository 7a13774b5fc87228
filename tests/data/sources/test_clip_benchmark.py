"""WebDataset evaluation folders, beside the public reader."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.decode import decode_image
from diptych.data.located import again
from diptych.data.sources.clip_benchmark import ClipBenchmark
from diptych.data.sources.source import Reject, open_source
from tests.data import benchmark_files
from tests.data.pictures import pixels, png


def records(path: Path, **options: Any) -> list[Record]:
    source = open_source(path, **options)
    assert isinstance(source, ClipBenchmark)
    return [r for r in source.records() if isinstance(r, Record)]


def test_classes(tmp_path: Path) -> None:
    found = records(benchmark_files.clip_benchmark(tmp_path, broken=True))
    assert [r.meta for r in found] == [{"label": i % 3, "split": "test"} for i in range(4)]
    assert [r.segments[0].data for r in found] == [png(i) for i in range(4)]
    assert [r.key for r in found[:2]] == ["test/0/s0000000", "test/0/s0000001"]
    again_0 = again(found[0].segments[0].data)
    assert again_0 is not None
    assert again_0() == png(0)
    (broken,) = [r for r in open_source(tmp_path).records() if isinstance(r, Reject)]
    assert (broken.key, broken.reason) == ("test/0/s9", "no_label")
    assert open_source(tmp_path).images_only


def test_a_split_is_a_folder_too(tmp_path: Path) -> None:
    benchmark_files.clip_benchmark(tmp_path)
    source = open_source(tmp_path / "test")
    assert list(source.records()) == list(open_source(tmp_path).records())


def test_many_labels(tmp_path: Path) -> None:
    found = records(benchmark_files.clip_benchmark(tmp_path, "multilabel"))
    assert [r.meta["label"] for r in found] == [["cat"], ["cat", "dog"], ["cat"], ["cat", "dog"]]
    (tmp_path / "classnames.txt").unlink()
    assert records(tmp_path)[1].meta["label"] == ["0", "1"]
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    reject = next(iter(open_source(tmp_path).records()))
    assert isinstance(reject, Reject)
    assert "got the shape (3,) for 2 classes" in reject.message


def test_captions(tmp_path: Path) -> None:
    found = records(benchmark_files.clip_benchmark(tmp_path, "retrieval"))
    assert [r.segments[1].texts for r in found] == [(f"caption {i}", f"again {i}") for i in range(4)]
    assert not open_source(tmp_path).images_only
    with pytest.raises(DataError, match="must say classification, multilabel or retrieval; got 'depth'"):
        records(tmp_path, task="depth")


def test_a_tar_that_is_lost_or_uncounted(tmp_path: Path) -> None:
    benchmark_files.clip_benchmark(tmp_path)
    (tmp_path / "test" / "nshards.txt").write_text("3")
    *_, lost = open_source(tmp_path).records()
    assert isinstance(lost, Reject)
    assert "2.tar is not" in lost.message
    (tmp_path / "test" / "nshards.txt").write_text("many")
    with pytest.raises(DataError, match="must hold the number of tars; got 'many'"):
        records(tmp_path)


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(11):
        benchmark_files.tar(tmp_path / "test" / f"{number}.tar", ("a.png", png(number)), ("a.cls", b"%d" % number))
    (tmp_path / "test" / "nshards.txt").write_text("11")
    assert [r.meta["label"] for r in records(tmp_path)] == list(range(11))


@pytest.mark.filterwarnings("ignore:WebDataset")
@pytest.mark.parametrize("task", ["classification", "multilabel", "retrieval"])
def test_agrees_with_the_public_reader(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("clip_benchmark")
    if "requests" not in sys.modules:
        monkeypatch.setitem(
            sys.modules, "requests", types.ModuleType("requests")
        )  # for downloads, of which none is made
    builder = pytest.importorskip("clip_benchmark.datasets.builder", exc_type=ImportError)
    benchmark_files.clip_benchmark(tmp_path, task)
    data = builder.build_wds_dataset("mine", transform=lambda image: image, split="test", data_dir=str(tmp_path))
    theirs, ours = list(data), records(tmp_path)
    assert len(theirs) == len(ours) == 4
    for record, (image, label) in zip(ours, theirs, strict=True):
        seen = decode_image(record.segments[0].data).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(seen, np.asarray(image.convert("RGB")))
        if task == "retrieval":
            assert list(record.segments[1].texts) == label
        elif task == "multilabel":
            assert record.meta["label"] == [data.classes[i] for i in np.flatnonzero(label)]
        else:
            assert record.meta["label"] == label


def test_reads_what_the_public_writer_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("clip_benchmark")
    if "requests" not in sys.modules:
        monkeypatch.setitem(sys.modules, "requests", types.ModuleType("requests"))
    writer = pytest.importorskip("clip_benchmark.webdataset_builder", exc_type=ImportError)
    plain = writer.torch.utils.data.DataLoader
    monkeypatch.setattr(writer.torch.utils.data, "DataLoader", lambda *a, **k: plain(*a, **{**k, "num_workers": 0}))

    class Pictures(list):  # type: ignore[type-arg]
        classes, templates = ("cat", "dog"), ("a {c}.",)

    data = Pictures((Image.fromarray(pixels(i)), i % 2) for i in range(5))
    writer.convert_dataset(
        data,
        "test",
        str(tmp_path),
        transform=writer.PIL_to_bytes("png"),
        image_format="png",
        max_count=2,
        verbose=False,
    )
    found = records(tmp_path)
    assert [r.meta["label"] for r in found] == [0, 1, 0, 1, 0]
    for i, record in enumerate(found):
        seen = decode_image(record.segments[0].data).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(seen, pixels(i))
    assert (tmp_path / "zeroshot_classification_templates.txt").read_text() == "a {c}.\n"
