import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import FetchError
from diptych.core.record import Record
from diptych.data.corpora.fashion_mnist import FashionMnist, FashionMnistConfig, read_idx
from diptych.data.sources.source import Reject
from tests.data.fake_clients import FakeClients, deb


def _idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes(), mtime=0)


def _corpus(
    clients: FakeClients,
    patch: pytest.MonkeyPatch,
    labels: tuple[int, ...] = (9, 0, 3),
) -> FashionMnist:
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
    files = {
        f"./usr/share/datasets/fashion-mnist/{prefix}-{kind}-ubyte.gz": _idx(value)
        for prefix in ("train", "t10k")
        for kind, value in (("images-idx3", images), ("labels-idx1", np.array(labels)))
    }
    package = clients.serve("apt", "dataset_1_all.deb", deb(files))
    patch.setattr(FashionMnist, "packages", (package,))
    return FashionMnistConfig().build()


def test_pictures_with_their_classes_in_two_splits(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _corpus(clients, monkeypatch)
    records = [r for r in source.records() if isinstance(r, Record)]
    assert [(r.key, r.meta["split"]) for r in records] == [
        *((f"train-{i:05d}", "train") for i in range(3)),
        *((f"test-{i:05d}", "test") for i in range(3)),
    ]
    assert records[0].meta == {"split": "train", "label": "ankle boot", "class_index": 9}
    assert records[1].segments[1].texts[0] == "a photo of a t-shirt."
    pixels = np.asarray(Image.open(io.BytesIO(records[1].segments[0].data)))
    assert np.array_equal(pixels, np.arange(784, 2 * 784).reshape(28, 28) % 256)
    assert source.classes()[3] == "dress"


def test_a_class_that_is_none_is_rejected(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(_corpus(clients, monkeypatch, labels=(1, 10, 2)).records())
    assert [r.key for r in found if isinstance(r, Reject)] == ["train-00001", "test-00001"]


def test_labels_must_fit_the_pictures(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match=r"a label for each picture; got pictures \(3, 28, 28\) and labels \(2,\)"):
        list(_corpus(clients, monkeypatch, labels=(1, 2)).records())


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"\0\0\x0d\1" + struct.pack(">I", 4) + b"abcd", "must be an IDX file of bytes"),
        (b"\0\0\x08\1" + struct.pack(">I", 5) + b"abcd", r"must hold \[5\] values; got 4"),
        (b"\0\0\x08\4" + struct.pack(">4I", 65536, 65536, 65536, 65536), "values; got 0"),
        (b"\0\0\x08\xff", r"must hold \[\] values"),
        (b"", "must be an IDX file"),
    ],
)
def test_damaged_idx_files(raw: bytes, words: str) -> None:
    with pytest.raises(FetchError, match=words):
        read_idx({"x.gz": gzip.compress(raw)}, "x.gz")


def test_truncated_gzip_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="must be a whole gzip file"):
        read_idx({"x.gz": _idx(np.zeros((9, 9)))[:-9]}, "x.gz")
    with pytest.raises(FetchError, match=r"must hold y.gz; got x.gz"):
        read_idx({"x.gz": b""}, "y.gz")
