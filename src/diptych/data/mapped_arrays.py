"""The arrays of an ``.npz`` without compression, mapped from its file: pages that all processes share and that the
system may drop at any time, so that a process which opens a file of a million rows need not hold them."""

import io
import zipfile
import zlib
from os import PathLike

import numpy as np
import torch

_LOCAL_HEADER = 30
"""Bytes of a zip member's header before its name; the last four are the lengths of name and extra (APPNOTE 4.3.7)."""
_HEADER = 1 << 14
"""Bytes of an array's header at most: numpy refuses longer ones than 10,000."""


def map_arrays(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of the file, read-only. A member that is compressed is read.

    torch maps the file, since it keeps no descriptor: thousands of such files can be mapped at once. The file must
    not be changed in its place as long as an array lives; replacing it by another is harmless. Raises OSError,
    ValueError or zipfile.BadZipFile where the file is none, or its checksums are not those of its arrays.
    """
    found: dict[str, np.ndarray] = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, 2)
        if not size:
            raise ValueError("an empty file")
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type != zipfile.ZIP_STORED:
                with archive.open(info) as member:
                    found[name] = np.lib.format.read_array(member, allow_pickle=False)
                continue
            found[name] = _array(_stored(content, info))
    return found


def _stored(content: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member in those of its zip."""
    name, extra = content[info.header_offset : info.header_offset + _LOCAL_HEADER][-4:].view("<u2").tolist()
    start = info.header_offset + _LOCAL_HEADER + name + extra
    stored = content[start : start + info.file_size]
    if len(stored) != info.file_size or zlib.crc32(stored.data) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} that is damaged")
    return stored


def _array(member: np.ndarray) -> np.ndarray:
    """The array of a ``.npy``, in its bytes."""
    file = io.BytesIO(member[:_HEADER].tobytes())
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("an array of objects, which would have to be unpickled")
    start, count = file.tell(), int(np.prod(shape, dtype=np.int64))
    if start + count * dtype.itemsize > len(member):
        raise ValueError("an array that its file cuts off")
    flat = member[start : start + count * dtype.itemsize].view(dtype)
    flat.flags.writeable = False
    return flat.reshape(shape, order="F" if fortran else "C")
