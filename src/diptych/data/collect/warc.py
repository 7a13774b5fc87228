"""WARC files (ISO 28500), plain or gzipped, a record at a time, within limits: Common Crawl's pages, and its WAT files.

Nothing is trusted: a record's size is what comes, not what it announces; a member that unpacks to more than it may is
left, and so is a file that unpacks to nothing but that. The places of records are noted where they can be read alone.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from diptych.core.errors import DataError

CHUNK = 1 << 16
MOST_HEADER = 1 << 16
"""Bytes of a record's headers, and of an answer's."""
MOST_LINE = 1 << 14
MOST_SKIPPED = 1 << 30
"""Unpacked bytes of a record that are passed over; a file that holds a larger one is read no further."""
SUFFIXES = (".warc", ".warc.gz", ".wat", ".wat.gz")


class BadRecord(Exception):
    """Why a record is not taken; `ends` where nothing after it can be read. `reason` is a word with underscores."""

    def __init__(self, reason: str, message: str, ends: bool = False) -> None:
        super().__init__(reason, message)
        self.reason, self.message, self.ends = reason, message, ends


@dataclass(slots=True)
class WarcRecord:
    """A record: its number in the file, from 0; its type; the address that it is of; its own headers and those of the
    HTTP answer in it (names in lower case), that answer's status (0: none), the body unpacked, and where it begins in
    the file (-1 where it cannot be read alone). `bad`: why its body is not here."""

    number: int
    type: str = ""
    address: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    http: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    offset: int = -1
    bad: BadRecord | None = None

    @property
    def content_type(self) -> str:
        """What the body is, without parameters, in lower case."""
        said = self.http.get("content-type", "") if self.status else self.headers.get("content-type", "")
        return said.partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The encoding that the answer's headers name."""
        said = self.http.get("content-type", "") if self.status else self.headers.get("content-type", "")
        return next(
            (p.split("=", 1)[1].strip() for p in said.split(";")[1:] if p.strip().lower().startswith("charset=")), ""
        )


TAKEN = frozenset({"response", "resource", "metadata"})


def warc_records(path: Path, max_bytes: int) -> Iterator[WarcRecord]:
    """The records of a file that hold something (responses, resources, metadata), in order. One that is too large or
    broken comes with `bad`, and is the last one where nothing after it can be read. Raises DataError."""
    try:
        with open(path, "rb") as file:
            stream = _Stream(file)
            number = 0
            while True:
                record = WarcRecord(number)
                try:
                    if not _read(stream, record, max_bytes):
                        return
                except BadRecord as bad:
                    record.bad = bad
                except zlib.error as error:
                    record.bad = BadRecord("corrupt", f"a WARC must unpack; got {error}. Copy it again.", ends=True)
                if record.bad or record.type in TAKEN:
                    yield record
                if record.bad is not None and record.bad.ends:
                    return
                number += 1
    except OSError as error:
        raise DataError(f"{path} must be readable; got {error.strerror}. Check the file.") from None


def read_record(path: Path, offset: int, max_bytes: int) -> WarcRecord:
    """The record that begins at a place of a file. Raises BadRecord."""
    with open(path, "rb") as file:
        file.seek(offset)
        record = WarcRecord(-1)
        try:
            if not _read(_Stream(file), record, max_bytes):
                raise BadRecord("truncated", f"a record must be at {offset:,} of {path}; the file ends before.")
        except zlib.error as error:
            raise BadRecord("corrupt", f"a WARC must unpack; got {error}. Copy it again.") from None
    return record


def wat_metadata(record: WarcRecord) -> dict[str, Any]:
    """The envelope that a record of a WAT holds; {} where it is none of an HTML page. Raises BadRecord."""
    try:
        whole = json.loads(record.body)
        answer = whole["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
        if not isinstance(answer["HTML-Metadata"], dict):
            return {}
        found = dict(answer)
        found["address"] = str(whole["Envelope"]["WARC-Header-Metadata"].get("WARC-Target-URI", ""))
        return found
    except (KeyError, TypeError, AttributeError):
        return {}
    except (ValueError, RecursionError) as error:
        raise BadRecord("bad_json", f"a WAT's record must be JSON; got {error}.") from None


def _read(stream: "_Stream", record: WarcRecord, max_bytes: int) -> bool:
    """Fill a record with the next one of the stream; False at its end."""
    record.offset = stream.begin()
    first = stream.line()
    if not first:
        return False
    if not first.startswith(b"WARC/"):
        raise BadRecord("not_a_record", f"a record must begin with WARC/; got {first[:20]!r}.", ends=True)
    record.headers = _headers(stream)
    record.type = record.headers.get("warc-type", "").lower()
    record.address = record.headers.get("warc-target-uri", "").strip("<>")
    said = record.headers.get("content-length", "")
    if not said.isascii() or not said.isdigit() or len(said) > 15:
        raise BadRecord("bad_header", f"a record must say its Content-Length; got {said[:20]!r}.", ends=True)
    size = int(said)
    if record.type not in TAKEN:
        stream.skip(size)
    elif size > max_bytes + MOST_HEADER:
        stream.skip(size)
        raise BadRecord("too_many_bytes", f"a record must have at most {max_bytes:,} bytes; got {size:,}.")
    else:
        block = stream.take(size)
        if len(block) < size:
            raise BadRecord("truncated", f"a record must have the {size:,} bytes that it says; got {len(block):,}.")
        record.body = block
        if block.startswith(b"HTTP/") and record.type == "response":
            _answer(record, block, max_bytes)
    return True


def _headers(stream: "_Stream") -> dict[str, str]:
    found: dict[str, str] = {}
    size = 0
    while (line := stream.line()).strip():
        size += len(line)
        if size > MOST_HEADER:
            raise BadRecord("bad_header", f"a record's headers must have at most {MOST_HEADER:,} bytes.", ends=True)
        name, _, value = line.decode("utf-8", "replace").partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _answer(record: WarcRecord, block: bytes, max_bytes: int) -> None:
    """Take an HTTP answer apart: status, headers, the body without its transfer and content encodings."""
    window = block[:MOST_HEADER]
    ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := window.find(mark)) >= 0]
    if not ends:
        raise BadRecord("bad_header", f"an answer's headers must end within {MOST_HEADER:,} bytes; they do not.")
    at, mark = min(ends)
    lines = block[:at].decode("latin-1").splitlines()
    parts = lines[0].split(None, 2) if lines else []
    record.status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() and len(parts[1]) == 3 else 0
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            known = record.http.get(name.strip().lower())
            record.http[name.strip().lower()] = value.strip() if known is None else f"{known}\n{value.strip()}"
    body = block[at + mark :]
    if "chunked" in record.http.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    record.body = _unpacked(body, record.http.get("content-encoding", "").strip().lower(), max_bytes)
    if len(record.body) > max_bytes:
        raise BadRecord("too_many_bytes", f"a body must have at most {max_bytes:,} bytes; got {len(record.body):,}.")


def _unchunked(body: bytes) -> bytes:
    """A chunked body in one piece; as it is where it is none, since writers of WARC often join it themselves."""
    found, place = list[bytes](), 0
    while True:
        end = body.find(b"\n", place, place + 200)
        size = body[place:end].partition(b";")[0].strip() if end >= 0 else b""
        try:
            count = int(size, 16) if size and len(size) <= 8 else -1
        except ValueError:
            count = -1
        if count < 0:
            return body if not found else b"".join(found)
        if count == 0:
            return b"".join(found)
        found.append(body[end + 1 : end + 1 + count])
        place = end + 1 + count + (2 if body[end + 1 + count : end + 3 + count] == b"\r\n" else 1)


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body without its content encoding, which writers of WARC often take off without saying so."""
    if encoding in ("", "identity", "none", "utf-8"):
        return body
    if encoding in ("gzip", "x-gzip") and not body.startswith(b"\x1f\x8b"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        if body[:200].lstrip()[:1] == b"<":
            return body
        raise BadRecord("encoded_body", f"a body must come plain, or as gzip or deflate; got {encoding[:20]!r}.")
    for bits in (47, -15):  # with a header of either kind, and without
        unpacker = zlib.decompressobj(bits)
        try:
            found = unpacker.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(found) > max_bytes:
            raise BadRecord("too_many_bytes", f"a body must unpack to at most {max_bytes:,} bytes; it has more.")
        return found
    if body[:200].lstrip()[:1] == b"<":
        return body
    raise BadRecord("corrupt", f"a body must be {encoding}, as its headers say; it is not.")


class _Stream:
    """The bytes of a WARC, unpacked where they are gzipped, a little at a time; knows where members begin."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0
        start = file.tell()
        self._gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(start)
        self._read = start
        self._packed = b""
        self._member: Any = None
        self._began = -1
        """Where in the file what is in the buffer begins; -1 within a member."""

    def begin(self) -> int:
        """Go to the next record, over empty lines; where it begins in the file, -1 within a member."""
        while True:
            if self._at >= len(self._buffer):
                self._began = -1 if self._gzipped else self._read
                if not self._fill():
                    return -1
                if self._began >= 0 and self._buffer[0] not in b"\r\n":
                    return self._began
            rest = self._buffer[self._at :]
            stripped = rest.lstrip(b"\r\n")
            self._at += len(rest) - len(stripped)
            if stripped:
                return -1 if self._gzipped else self._read - len(stripped)

    def line(self) -> bytes:
        """The next line with its end, b"" at the end of the file."""
        parts, size = list[bytes](), 0
        while True:
            if self._at >= len(self._buffer) and not self._fill():
                return b"".join(parts)
            end = self._buffer.find(b"\n", self._at)
            stop = end + 1 if end >= 0 else len(self._buffer)
            parts.append(self._buffer[self._at : stop])
            size += stop - self._at
            self._at = stop
            if size > MOST_LINE:
                raise BadRecord("bad_header", f"a header must have at most {MOST_LINE:,} bytes.", ends=True)
            if end >= 0:
                return b"".join(parts)

    def take(self, size: int) -> bytes:
        """`size` bytes, or as many as there are."""
        parts = list[bytes]()
        while size > 0 and (self._at < len(self._buffer) or self._fill()):
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises BadRecord where these are too many."""
        if not self._gzipped:
            here = len(self._buffer) - self._at
            if size <= here:
                self._at += size
                return
            self._file.seek(size - here, 1)
            self._read += size - here
            self._buffer, self._at = b"", 0
            return
        if size > MOST_SKIPPED:
            raise BadRecord("too_many_bytes", f"a record must unpack to at most {MOST_SKIPPED:,} bytes.", ends=True)
        while size > 0 and (self._at < len(self._buffer) or self._fill()):
            step = min(size, len(self._buffer) - self._at)
            self._at += step
            size -= step

    def _fill(self) -> bool:
        """Have the next bytes in the buffer, never many; False at the end of the file."""
        if not self._gzipped:
            self._buffer, self._at = self._file.read(CHUNK), 0
            self._read += len(self._buffer)
            return bool(self._buffer)
        while True:
            if self._member is None:
                self._more()
                if not self._packed.lstrip(b"\0"):  # padding
                    return False
                self._member, self._began = zlib.decompressobj(31), self._read - len(self._packed)
            found = self._member.decompress(self._packed or self._more(), CHUNK)
            self._packed = self._member.unconsumed_tail
            if self._member.eof:
                self._packed = self._member.unused_data
                self._member = None
            elif not found and not self._packed and not self._more():
                raise BadRecord("truncated", "a WARC must be whole; it ends within a member. Copy it again.", ends=True)
            if found:
                self._buffer, self._at = found, 0
                return True

    def _more(self) -> bytes:
        if not self._packed:
            self._packed = self._file.read(CHUNK)
            self._read += len(self._packed)
        return self._packed
