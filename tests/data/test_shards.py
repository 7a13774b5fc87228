"""Shards: written once, read at random, by us and by everyone else."""

import io
import multiprocessing
import pickle
import tarfile
from pathlib import Path

import pytest

from diptych.core.errors import ShardError
from diptych.core.record import Record
from diptych.data.shard_index import index_path
from diptych.data.shards import ShardReader, ShardWriter, image_id, index_tar
from tests.data.pictures import jpg, png
from tests.data.test_record_files import MIXED

RECORDS = [Record.pair(f"k/{i}", png(i), "png", (f"caption {i}", "ü"), meta={"i": i}) for i in range(7)] + [MIXED]


def write(folder: Path, **limits: int) -> list[Path]:
    with ShardWriter(folder, **limits) as writer:
        for r in RECORDS:
            writer.add(r, [(32, 24)])
    return [folder / s for s in writer.shards]


def test_records_come_back(tmp_path: Path) -> None:
    tars = write(tmp_path, records_per_shard=3)
    assert [t.name for t in tars] == ["00000.tar", "00001.tar", "00002.tar"]
    readers = [ShardReader(t) for t in tars]
    assert [len(r) for r in readers] == [3, 3, 2]
    got = [r.record(i) for r in readers for i in range(len(r))]
    assert got == RECORDS
    assert readers[0].index.uid[1].tobytes().hex() == RECORDS[1].uid
    assert readers[0].index.image_id[1] == image_id(RECORDS[1])
    assert not list(tmp_path.glob(".*"))


def test_a_shard_ends_at_its_bytes(tmp_path: Path) -> None:
    assert len(write(tmp_path, bytes_per_shard=4000)) > 1


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a")[0], write(tmp_path / "b")[0]
    assert one.read_bytes() == two.read_bytes()
    assert index_path(one).read_bytes() == index_path(two).read_bytes()


def test_plain_tar_reads_it(tmp_path: Path) -> None:
    with tarfile.open(write(tmp_path)[0]) as archive:
        members = archive.getmembers()
        assert [m.name for m in members[:3]] == ["k/0.png", "k/0.txt", "k/0.json"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        assert archive.extractfile(members[0]).read() == png(0)  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore")
def test_the_webdataset_library_reads_it_identically(tmp_path: Path) -> None:
    import webdataset

    tar = write(tmp_path)[0]
    reader = ShardReader(tar)
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert len(samples) == len(reader)
    for row, sample in enumerate(samples):
        ours = {s: reader._read(m) for s, m in reader.index.members(row)}
        assert {k: v for k, v in sample.items() if not k.startswith("__")} == ours
        assert sample["__key__"] == reader.index.key(row)


def test_what_the_webdataset_library_writes_is_indexed(tmp_path: Path) -> None:
    import webdataset

    path = tmp_path / "foreign.tar"
    with webdataset.TarWriter(str(path)) as sink:
        for i in range(3):
            sink.write({"__key__": f"{i:05d}", "jpg": jpg(i), "txt": f"c{i}", "json": {"url": "u", "caption": f"c{i}"}})
        sink.write({"__key__": "no-image", "cls": b"3"})
    index = index_tar(path)
    reader = ShardReader(path)
    assert len(index) == len(reader) == 3
    assert reader.record(1) == Record.pair("00001", jpg(1), "jpg", ("c1",), meta={"url": "u", "caption": "c1"})
    assert (index.width[0], index.height[0]) == (32, 24)
    assert index.uid[2].tobytes().hex() == reader.record(2).uid


def test_our_own_tar_can_be_indexed_anew(tmp_path: Path) -> None:
    tar = write(tmp_path)[0]
    before = ShardReader(tar)
    index_path(tar).unlink()
    index_tar(tar)
    after = ShardReader(tar)
    assert [after.record(i) for i in range(len(after))] == RECORDS
    assert (after.index.uid == before.index.uid).all()
    assert (after.index.image_id == before.index.image_id).all()
    assert (after.index.offset == before.index.offset).all()


def test_a_truncated_or_changed_tar_is_named(tmp_path: Path) -> None:
    tar = write(tmp_path)[0]
    whole = tar.read_bytes()
    for damage, word in ((whole[:-2000], "cut off"), (b"", "cut off"), (whole + b"x", "changed")):
        tar.write_bytes(damage)
        with pytest.raises(ShardError, match=rf"00000.tar must have .*{word}.*pack the dataset again"):
            ShardReader(tar).record(0)
    tar.unlink()
    with pytest.raises(ShardError, match="Copy it again"):
        ShardReader(tar, ShardReader(write(tmp_path / "b")[0]).index).record(0)
    tar.write_bytes(whole[:3000])
    with pytest.raises(ShardError, match="must be a whole tar"):
        index_tar(tar)


def test_rows_are_checked(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path)[0])
    for row in (-1, len(RECORDS)):
        for method in (reader.record, reader.sidecar, reader.image):
            with pytest.raises(IndexError):
                method(row)


def test_an_interrupted_shard_has_no_name(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.add(RECORDS[0])
    writer.__exit__(RuntimeError)
    assert not list(tmp_path.iterdir())


def test_pickled_and_forked_readers_work(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path)[0])
    reader.record(0)
    assert reader.is_open
    copy = pickle.loads(pickle.dumps(reader))
    assert not copy.is_open
    assert copy.record(3) == RECORDS[3]
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: there.send(reader.record(4).uid))
    process.start()
    assert here.poll(30)
    assert here.recv() == RECORDS[4].uid
    process.join(30)
    reader.close()
    assert not reader.is_open
    assert reader.record(0) == RECORDS[0]


def test_members_that_are_not_data_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("../up.jpg", tarfile.REGTYPE), ("b.pkl", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            data = b"" if kind == tarfile.SYMTYPE else b"x"
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert len(index_tar(path)) == 1  # ../up.jpg is bytes like any other: nothing is ever extracted
