"""The index beside a tar: where every record and member lies, so that the tar is never parsed again."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.core.errors import ShardError
from diptych.data.mapped_arrays import map_arrays

VERSION = 1


class Index:
    """Where everything in one tar is: flat numpy arrays, a few dozen bytes a member, never a Python object a record.
    They are mapped from the file: whoever opens a dataset holds none of it.

    Rows are records, members are files in the tar; `first[i] : first[i + 1]` are the members of row i.
    """

    ROWS = ("uid", "image_id", "first", "key_end")
    MEMBERS = ("offset", "size", "suffix", "width", "height")

    def __init__(self, arrays: dict[str, np.ndarray], path: Path | None = None) -> None:
        self.path = path
        self.uid = arrays["uid"]  # (n, 16) uint8
        self.image_id = arrays["image_id"]  # (n,) int64
        self.first = arrays["first"]  # (n + 1,) int64
        self.key_end = arrays["key_end"]  # (n + 1,) int64, into keys
        self.keys = arrays["keys"]  # uint8, utf-8
        self.offset = arrays["offset"]  # (m,) int64, of the content, in bytes
        self.size = arrays["size"]  # (m,) int64, in bytes
        self.suffix = arrays["suffix"]  # (m,) uint8, into suffixes
        self.width = arrays["width"]  # (m,) uint32, upright pixels, 0 where not an image
        self.height = arrays["height"]  # (m,) uint32
        self.suffixes = [str(s) for s in arrays["suffixes"]]
        self.tar_bytes = int(arrays["tar_bytes"])

    def __len__(self) -> int:
        return len(self.uid)

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.path is None else (Index.load, (self.path,))

    def key(self, row: int) -> str:
        """The member key of a row."""
        return bytes(self.keys[self.key_end[row] : self.key_end[row + 1]]).decode()

    def members(self, row: int) -> Iterator[tuple[str, int]]:
        """(suffix, member number) of each member of a row, in the tar's order."""
        for m in range(int(self.first[row]), int(self.first[row + 1])):
            yield self.suffixes[self.suffix[m]], m

    @classmethod
    def load(cls, path: Path) -> "Index":
        """The index in a file. Raises ShardError if it is missing or damaged."""
        try:
            arrays = map_arrays(path)
            if int(arrays["version"]) != VERSION:
                raise ShardError(
                    f"{path} must be an index of version {VERSION}; got {int(arrays['version'])}. "
                    "Delete it and let diptych write it again, or use the diptych that wrote it."
                )
            index = cls(arrays, path)
            index._check()
            return index
        except FileNotFoundError:
            raise ShardError(f"{path} must exist beside its tar; it does not. Run `index_tar` on the tar.") from None
        except ShardError:
            raise
        except Exception as error:  # a zip of arrays, damaged in any way
            raise ShardError(f"{path} must be a whole index; got {error}. Delete it and run `index_tar`.") from None

    def _check(self) -> None:
        rows, members = len(self.uid), len(self.offset)
        sound = (
            self.uid.shape == (rows, 16)
            and len(self.image_id) == rows
            and len(self.first) == len(self.key_end) == rows + 1
            and len(self.size) == len(self.suffix) == len(self.width) == len(self.height) == members
            and int(self.first[0]) == 0
            and int(self.first[-1]) == members
            and bool((np.diff(self.first) >= 0).all() and (np.diff(self.key_end) >= 0).all())
            and int(self.key_end[-1]) == len(self.keys)
        )
        if sound and members:
            sound = (
                int(self.offset.min()) >= 0
                and int(self.size.min()) >= 0
                and int((self.offset + self.size).max()) <= self.tar_bytes
                and int(self.suffix.max()) < len(self.suffixes)
            )
        if not sound:
            raise ValueError("arrays that contradict each other")


class IndexBuilder:
    """Collects the arrays of an `Index`, row by row; one shard's worth is all that is ever held."""

    def __init__(self) -> None:
        self.uids, self.image_ids, self.first = bytearray(), list[int](), [0]
        self.keys, self.key_end = bytearray(), [0]
        self.rows: list[tuple[int, int, int, int, int]] = []  # offset, size, suffix, width, height
        self.suffixes: dict[str, int] = {}

    def add(self, key: str, uid: str, image: int, members: Sequence[tuple[str, int, int, tuple[int, int]]]) -> None:
        self.uids += bytes.fromhex(uid)
        self.image_ids.append(image)
        self.keys += key.encode()
        self.key_end.append(len(self.keys))
        for suffix, offset, size, (width, height) in members:
            self.rows.append((offset, size, self.suffixes.setdefault(suffix, len(self.suffixes)), width, height))
        self.first.append(len(self.rows))

    def to_bytes(self, tar_bytes: int) -> bytes:
        columns = np.array(self.rows, dtype=np.int64).reshape(-1, 5).T
        buffer = io.BytesIO()
        np.savez(
            buffer,
            version=np.int64(VERSION),
            tar_bytes=np.int64(tar_bytes),
            uid=np.frombuffer(bytes(self.uids), dtype=np.uint8).reshape(-1, 16),
            image_id=np.array(self.image_ids, dtype=np.int64),
            first=np.array(self.first, dtype=np.int64),
            key_end=np.array(self.key_end, dtype=np.int64),
            keys=np.frombuffer(bytes(self.keys), dtype=np.uint8),
            offset=columns[0],
            size=columns[1],
            suffix=columns[2].astype(np.uint8),
            width=columns[3].astype(np.uint32),
            height=columns[4].astype(np.uint32),
            suffixes=np.array(list(self.suffixes) or [""]),
        )
        return buffer.getvalue()


def index_path(tar: Path) -> Path:
    """Where the index of a tar lies: ``00000.tar`` -> ``00000.index.npz``."""
    return tar.with_name(tar.name.removesuffix(".tar") + ".index.npz")
