import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from diptych.core.errors import FetchError, ShardError
from diptych.data.archive import Limits, read_members
from diptych.data.shards import read_tar
from diptych.data.sources.source import Reject, open_source
from tests.data.fake_clients import deb, link, tar_bytes, tgz, wheel

FILES = {"package/a.txt": b"alpha", "package/b/c.bin": bytes(range(256)) * 50}


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "archive"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        tar_bytes(FILES),
        tgz(FILES),
        lzma.compress(tar_bytes(FILES)),
        deb(FILES),
        deb({}, data=bytes(pa.compress(tar_bytes(FILES), codec="zstd", asbytes=True))),
        wheel(FILES),
    ],
    ids=["tar", "tgz", "txz", "deb", "deb-zst", "wheel"],
)
def test_every_kind_of_archive_gives_its_files(tmp_path: Path, data: bytes) -> None:
    path = _write(tmp_path, data)
    assert {m.name: m.data for m in read_members(path)} == FILES
    assert [m.name for m in read_members(path, lambda name: name.endswith(".txt"))] == ["package/a.txt"]


def test_links_are_named_and_never_followed(tmp_path: Path) -> None:
    extra = (link("./usr/l", "../../etc/passwd"), link("./usr/h", "usr/x", tarfile.LNKTYPE))
    found = list(read_members(_write(tmp_path, deb({"./usr/x": b"1"}, extra))))
    assert [(m.name, m.data, m.link) for m in found] == [
        ("usr/x", b"1", None),
        ("usr/l", b"", "../../etc/passwd"),
        ("usr/h", b"", "usr/x"),
    ]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_member_that_leaves_the_archive_refuses_it_whole(tmp_path: Path, name: str) -> None:
    for data in (tgz({name: b"x"}), wheel({name: b"x"})):
        with pytest.raises(FetchError, match=r"must hold only relative names without '..'"):
            list(read_members(_write(tmp_path, data), lambda n: False))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(FetchError, match=r"must hold only files and folders; dev is neither"):
        list(read_members(_write(tmp_path, tgz({}, (link("dev", "", kind),)))))


def test_a_zip_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    info = zipfile.ZipInfo("l")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    (member,) = read_members(path)
    assert (member.data, member.link) == (b"", "/etc/passwd")


def test_limits_hold_before_the_bytes_are_there(tmp_path: Path) -> None:
    zeros = b"\0" * (4 << 20)
    for data in (tgz({"a": zeros, "b": zeros}), deb({"a": zeros, "b": zeros}), wheel({"a": zeros, "b": zeros})):
        path = _write(tmp_path, data)
        with pytest.raises(FetchError, match=r"members of at most 1,000 bytes; a has 4,194,304"):
            list(read_members(path, lambda n: False, Limits(member_bytes=1000)))
        with pytest.raises(FetchError, match=r"must unpack to at most 5,000,000 bytes"):
            list(read_members(path, lambda n: False, Limits(total_bytes=5_000_000)))
        with pytest.raises(FetchError, match=r"at most 1 members"):
            list(read_members(path, limits=Limits(members=1)))


@pytest.mark.parametrize("make", [tgz, deb, wheel, lambda f: lzma.compress(tar_bytes(f))])
@pytest.mark.parametrize("keep", [0.0, 0.03, 0.5, 0.95])
def test_a_truncated_archive_says_so(tmp_path: Path, make: object, keep: float) -> None:
    data = make({"a": bytes(range(256)) * 400, "b": b"x" * 5000})  # type: ignore[operator]
    path = _write(tmp_path, data[: int(len(data) * keep)])
    with pytest.raises(FetchError, match=r"must be a whole archive; got .* Delete .* and fetch it again"):
        assert len(list(read_members(path))) == 2


def test_rubbish_is_no_archive(tmp_path: Path) -> None:
    for data in (b"rubbish" * 200, b"!<arch>\nrubbish", b"PK\x03\x04rubbish", b"\x1f\x8brubbish"):
        with pytest.raises(FetchError, match="must be a whole archive"):
            list(read_members(_write(tmp_path, data)))
    broken = bytearray(wheel({"a": b"x" * 100}))
    broken[40] ^= 0xFF
    with pytest.raises(FetchError, match="must be a whole archive"):
        list(read_members(_write(tmp_path, bytes(broken))))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30
    path = tmp_path / "headers.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    with pytest.raises(FetchError, match=r"a header of 8,589,934,592 bytes"):
        list(read_members(path))
    with pytest.raises(ShardError, match="a header of"):
        list(read_tar(path))
    (reject,) = open_source(path).records()
    assert isinstance(reject, Reject)
    assert reject.reason == "damaged_file"
    named = tmp_path / "named.tar"
    with tarfile.open(named, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("ä" * 200 + ".txt"))
    assert [len(m.name) for m in read_members(named)] == [204]
