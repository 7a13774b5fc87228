"""Fashion-MNIST: 70,000 pictures of garments, 28 x 28 grey pixels, ten classes.

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. From the Debian package dataset-fashion-mnist.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diptych.core.errors import FetchError
from diptych.core.record import Record
from diptych.data.archive import read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.fetch import Package
from diptych.data.sources.source import Reject

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TEMPLATES = ("a photo of a {}.", "a grey photo of a {}.", "a {} for sale.", "{}")
FILES = {"train": "train", "test": "t10k"}
MAX_BYTES = 256 << 20
"""The larger of the files holds 47 MB; a gzip stream may hold anything."""


class FashionMnistConfig(CorpusConfig):
    """No settings: every picture and its class, in the authors' two splits."""

    def build(self) -> "FashionMnist":
        """The corpus."""
        return FashionMnist(self)


class FashionMnist(Corpus):
    """Records keyed <split>-<place>; the garment is light on black, as published; meta holds label and class_index."""

    config: FashionMnistConfig
    summary: ClassVar[str] = "70 k pictures of garments, 28 x 28 grey pixels, ten classes"
    origin: ClassVar[str] = "Debian dataset-fashion-mnist 0.0~git20200523.55506a9-1"
    licence: ClassVar[str] = "MIT"
    size: ClassVar[str] = "70 k pictures, 31 MB to fetch, 150 MB packed"
    version: ClassVar[str] = "1"
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="apt",
            name="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            filename="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        ),
    )

    def classes(self) -> tuple[str, ...]:
        """The ten garments, in the order of class_index."""
        return NAMES

    def templates(self) -> tuple[str, ...]:
        """How the classes are put into words."""
        return TEMPLATES

    def records(self) -> Iterator[Record | Reject]:
        """The pictures in the authors' order, train before test."""
        (archive,) = self.archives()
        files = {PurePosixPath(m.name).name: m.data for m in read_members(archive, lambda n: n.endswith("-ubyte.gz"))}
        for split, prefix in FILES.items():
            images = read_idx(files, f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(files, f"{prefix}-labels-idx1-ubyte.gz")
            if images.ndim != 3 or labels.shape != images.shape[:1]:
                raise FetchError(
                    f"{archive.name} must hold a label for each picture; got pictures {images.shape} and labels "
                    f"{labels.shape}. Delete {archive} and fetch it again."
                )
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                key = f"{split}-{i:05d}"
                if label >= len(NAMES):
                    yield Reject(key, f"a class of 0 to {len(NAMES) - 1} is wanted; it has {label}")
                    continue
                name = NAMES[int(label)]
                meta = {"split": split, "label": name, "class_index": int(label)}
                yield Record.pair(key, _png(image), "png", tuple(t.format(name) for t in TEMPLATES), meta=meta)


def read_idx(files: dict[str, bytes], name: str) -> UInt8[np.ndarray, "..."]:
    """The array in a gzipped IDX file of bytes: magic 0 0 8 ndim, then ndim big-endian sizes, then the values.

    The format is described at the foot of Y. LeCun's page of MNIST. Errors: FetchError if it is another or damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(files[name])) as stream:
            raw = stream.read(MAX_BYTES + 1)
    except KeyError:
        raise FetchError(f"the package must hold {name}; got {', '.join(files) or 'no such files'}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise FetchError(
            f"{name} must be a whole gzip file; got {error}. Delete the package and fetch it again."
        ) from None
    if len(raw) > MAX_BYTES or len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise FetchError(
            f"{name} must be an IDX file of bytes below {MAX_BYTES:,} bytes; got {raw[:4]!r} {len(raw):,}."
        )
    sizes = [int(s) for s in np.frombuffer(raw, ">u4", count=min(raw[3], (len(raw) - 4) // 4), offset=4)]
    values = raw[4 + 4 * raw[3] :]
    count = int(np.prod(sizes, dtype=object)) if len(sizes) == raw[3] else -1  # exact: a product must not wrap
    if count != len(values):
        raise FetchError(
            f"{name} must hold {sizes} values; got {len(values):,}. Delete the package and fetch it again."
        )
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _png(image: UInt8[np.ndarray, "h w"]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image, mode="L").save(out, format="PNG")
    return out.getvalue()
