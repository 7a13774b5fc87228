"""The samples of a foreign tar (tests/data/sources/test_webdataset.py holds more of what can be wrong with one)."""

import gzip
from pathlib import Path

from diptych.data.located import again
from diptych.data.sources.source import Reject
from diptych.data.tar_samples import read_samples
from tests.data.benchmark_files import tar


def test_wanted_members_by_sample_which_can_be_read_again(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("x.jpeg", b"one"), ("x.cls", b"1"), ("x.bin", b"?"), ("y.jpg", b"two"))
    found = list(read_samples(path, "p/", {"jpg", "cls"}.__contains__, 100))
    assert found == [("p/x", {"jpg": b"one", "cls": b"1"}), ("p/y", {"jpg": b"two"})]
    assert not isinstance(found[1], Reject)
    how = again(found[1][1]["jpg"])
    assert how is not None
    assert how() == b"two"


def test_members_of_a_compressed_tar_cannot(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("x.jpg", b"one"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    ((_, files),) = read_samples(path, "", {"jpg"}.__contains__, 100)  # type: ignore[misc]
    assert files == {"jpg": b"one"}
    assert again(files["jpg"]) is None


def test_what_is_wrong_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("x.jpg", b"long"), ("../y.jpg", b"y"), ("z.jpg", b"z"))
    found = list(read_samples(path, "", {"jpg"}.__contains__, 3))
    assert [r.reason if isinstance(r, Reject) else r[0] for r in found] == ["too_many_bytes", "unsafe_member", "z"]
    path.write_bytes(path.read_bytes()[:700])
    assert [getattr(r, "reason", "") for r in read_samples(path, "", {"jpg"}.__contains__, 99)][-1] == "damaged_file"
