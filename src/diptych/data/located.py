"""Bytes that can be had again: they know how they were read, so that whoever holds many need not hold the bytes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.data.decode import decode_image, encode_bmp


class Located(bytes):
    """Bytes like any others, with `again`: a function (that can be pickled) which reads them anew."""

    again: Callable[[], bytes] | None

    def __new__(cls, data: bytes, again: Callable[[], bytes] | None = None) -> "Located":
        found = super().__new__(cls, data)
        found.again = again
        return found


def again(data: bytes) -> Callable[[], bytes] | None:
    """How these bytes can be read anew; None where no one knows."""
    return data.again if isinstance(data, Located) else None


def whole_file(path: Path) -> Located:
    """The bytes of a file. Raises OSError now, DataError when they are read again and the file is gone."""
    return Located(path.read_bytes(), partial(read_part, path))


def part_of_file(data: bytes, path: Path, offset: int) -> Located:
    """`data`, which lies in a file from `offset` on, uncompressed."""
    return Located(data, partial(read_part, path, offset, len(data)))


def cut_out(data: bytes, box: tuple[int, int, int, int]) -> Located:
    """The part [left, top, right, bottom) of an image as a BMP, without loss. Raises BadImage, and DataError for a box
    that holds no pixel of it."""
    how = again(data)
    return Located(_cut(data, box), None if how is None else partial(_cut_again, how, box))


def read_part(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """`size` bytes of a file from `offset` on (None: all). Raises DataError where they are not there any more."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read() if size is None else file.read(size)
    except OSError as error:
        raise DataError(
            f"{path} must be there as long as it is evaluated on; got {error.strerror}. Put it back, and start again."
        ) from None
    if size is not None and len(data) != size:
        raise DataError(f"{path} must stay as it is while it is evaluated on; it was cut off. Start again.")
    return data


def _cut_again(how: Callable[[], bytes], box: tuple[int, int, int, int]) -> bytes:
    return _cut(how(), box)


def _cut(data: bytes, box: tuple[int, int, int, int]) -> bytes:
    image: Any = decode_image(data)
    left, top = max(0, box[0]), max(0, box[1])
    part = image[:, top : max(0, box[3]), left : max(0, box[2])]
    if not part.numel():
        raise DataError(
            f"a box must hold some of its image of {image.shape[2]} x {image.shape[1]} pixels; got {list(box)} "
            "(left, top, right, bottom). Mend it."
        )
    return encode_bmp(part)
