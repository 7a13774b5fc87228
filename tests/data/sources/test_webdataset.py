"""Tars of other tools, whole and damaged, and our own packed again."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords, Reject, open_source
from diptych.data.sources.webdataset import expand_braces
from tests.data.pictures import encode, jpg, pixels, png


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def read(path: Path | str) -> list[Record | Reject]:
    return list(open_source(path).records())


def test_img2dataset(tmp_path: Path) -> None:
    side = json.dumps({"url": "http://x", "caption": "a dog", "exif": "{}", "status": "success", "error_message": None})
    tar(tmp_path / "00000.tar", {"000000001.jpg": jpg(1), "000000001.json": side.encode(), "000000001.txt": b"a dog"})
    (tmp_path / "00000.parquet").write_bytes(b"its log of rows")
    (tmp_path / "00000_stats.json").write_text("{}")
    (record,) = read(tmp_path)
    assert isinstance(record, Record)
    assert record.key == "00000/000000001"
    assert record.segments[1].texts == ("a dog",)
    assert record.meta == {"url": "http://x", "caption": "a dog", "status": "success"}


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_odd_members(tmp_path: Path, name: str) -> None:
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    got = read(
        tar(
            tmp_path / name,
            {
                "one.JPG": jpg(1),
                "one.txt": b"one",
                "one.cls": b"3",
                "__meta__.json": b"{}",
                "link.jpg": link,
                "link.txt": b"x",
                "../up.png": png(2),
                "words.txt": b"only words",
                "bad.jpg": jpg(3),
                "bad.json": b"{",
                "gif.gif": encode(pixels(4), "GIF"),
                "gif.caption": b"moves",
                "evil.pkl": b"cos\nsystem\n(S'touch pwned'\ntR.",
            },
        )
    )
    reasons = [i.reason if isinstance(i, Reject) else i.segments[1].texts[0] for i in got]
    assert reasons == ["one", "unsafe_member", "unsafe_member", "no_image", "bad_json", "moves", "no_image"]


def test_a_cut_tar_gives_what_it_has_and_the_next_goes_on(tmp_path: Path) -> None:
    for n in range(2):
        tar(tmp_path / f"{n}.tar", {f"{i}.jpg": jpg(i) for i in range(4)})
    data = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(data[:4000])
    got = read(tmp_path)
    damaged = [i for i in got if isinstance(i, Reject)]
    assert [d.reason for d in damaged] == ["damaged_file"]
    assert "Download it again" in damaged[0].message
    assert sum(i.key.startswith("1/") for i in got) == 4
    assert len({i.key for i in got}) == len(got)
    (tmp_path / "0.tar").write_bytes(b"no tar at all" * 100)
    assert [i.reason for i in read(tmp_path) if isinstance(i, Reject)] == ["damaged_file"]


def test_splits_and_braces(tmp_path: Path) -> None:
    tar(tmp_path / "train" / "0.tar", {"a.jpg": jpg(1)})
    tar(tmp_path / "val" / "0.tar", {"a.jpg": jpg(2)})
    got = read(tmp_path)
    assert [(i.key, i.meta["split"]) for i in got if isinstance(i, Record)] == [
        ("train/0/a", "train"),
        ("val/0/a", "val"),
    ]
    for n in range(3):
        tar(tmp_path / f"b{n:02d}.tar", {"a.jpg": jpg(n)})
    assert [i.key for i in read(f"{tmp_path}/b{{00..02}}.tar")] == ["b00/a", "b01/a", "b02/a"]
    with pytest.raises(DataError, match=r"b03.tar is not"):
        read(f"{tmp_path}/b{{00..03}}.tar")
    assert expand_braces("x{a,b}{1..2}") == ["xa1", "xa2", "xb1", "xb2"]
    with pytest.raises(DataError, match="count upwards"):
        expand_braces("{5..1}.tar")


def test_a_dataset_of_ours_can_be_packed_again(tmp_path: Path) -> None:
    records = [
        Record.pair(f"k.{i}", jpg(i, height=80, width=120), "jpg", (f"c{i}", "d"), meta={"i": i}) for i in range(20)
    ]
    config = PackConfig(jobs=1, vocab_size=300, val=0.3)
    pack(FromRecords(lambda: records), tmp_path / "one", config)
    pack(open_source(tmp_path / "one"), tmp_path / "two", config)
    one, two = Dataset.open(tmp_path / "one"), Dataset.open(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    report = pack(open_source(tmp_path / "one"), tmp_path / "three", config.replace(resize=60))
    assert report.kept == report.notes["resized"] == 20
    three = Dataset.open(tmp_path / "three").splits["val"]
    assert [three.record(i).key for i in range(len(three))] == [
        one.splits["val"].record(i).key for i in range(len(three))
    ]
