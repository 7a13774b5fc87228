"""Where the images of a page are, if they are here: beside a saved page, in the WARC that holds it, in the page itself.

An address of a page is anyone's words. It is looked up inside the folder that was given and nowhere else, links out of
it included; a data: link is unpacked only if what it holds is small enough.
"""

import base64
import binascii
import hashlib
import os
import re
from abc import ABC, abstractmethod
from array import array
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np

from diptych.data.collect.page_rules import Dropped
from diptych.data.collect.warc import BadRecord, WarcRecord, read_record, warc_records
from diptych.data.sources.source import Reject, read_file
from diptych.data.web.opt_out import Reservations, check_headers
from diptych.data.web.refused import Refused

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
MOST_NAME = 1024


class Images(ABC):
    """Finds what an image's address names: its bytes, or None where it is a link to elsewhere."""

    @abstractmethod
    def find(self, source: str, url: str, max_bytes: int) -> bytes | None:
        """`source` as the page has it, `url` joined with the page's own address. Raises Dropped."""


def embedded(source: str, max_bytes: int) -> bytes | None:
    """The bytes of a data: link; None for any other. Raises Dropped: too_many_bytes, bad_data_link."""
    if source[:5].lower() != "data:":
        return None
    head, comma, body = source[5:].partition(",")
    if not comma or not head.lower().startswith("image/"):
        raise Dropped("bad_data_link", f"a data: link must hold an image; got {source[:40]!r}.")
    coded = head.lower().rstrip().endswith(";base64")
    if (len(body) * 3 // 4 if coded else len(body) // 3) > max_bytes:
        raise Dropped("too_many_bytes", f"an image must have at most {max_bytes:,} bytes; a data: link has more.")
    try:
        data = base64.b64decode(unquote(body) if "%" in body else body) if coded else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise Dropped("bad_data_link", f"a data: link must be base64; got {body[:40]!r}.") from None
    if len(data) > max_bytes:
        raise Dropped("too_many_bytes", f"an image must have at most {max_bytes:,} bytes; got {len(data):,}.")
    return data


class NoImages(Images):
    """Of a page that came alone: all its images are links."""

    def find(self, source: str, url: str, max_bytes: int) -> bytes | None:
        """None."""
        return None


class FolderImages(Images):
    """Of a saved page: files of its folder, or below, or above as far as `root`."""

    def __init__(self, root: Path, page: Path, base: str, known: bool) -> None:
        """`base` as the page has it; `known`: whether the page's own address is."""
        self.root, self.folder, self.known = root, page.parent, known
        self.base = base
        self.real_root = os.path.realpath(root)

    def find(self, source: str, url: str, max_bytes: int) -> bytes | None:
        """The file's bytes; None for a link. Raises Dropped: leaves_folder, file_not_found, bad_address, ..."""
        if source.startswith(("http://", "https://", "//")) or self.base.startswith(("http:", "https:", "//")):
            return None
        if _SCHEME.match(source):
            raise Dropped("bad_address", f"an image must be a file or a link; got {source[:80]!r}.")
        last = None
        for name in dict.fromkeys((source, re.split(r"[?#]", source, maxsplit=1)[0])):
            try:
                return self._read(unquote(name), max_bytes)
            except Dropped as dropped:
                last = dropped
                if dropped.reason != "file_not_found":
                    raise
        if self.known and url.startswith(("http://", "https://")):
            return None
        assert last is not None
        raise last

    def _read(self, name: str, max_bytes: int) -> bytes:
        if not name or "\0" in name or len(name) > MOST_NAME:
            raise Dropped("bad_address", f"an image must have a name; got {name[:80]!r}.")
        under = "" if _SCHEME.match(self.base) else unquote(self.base)
        if "\0" in under:
            raise Dropped("bad_address", f"a page's base must have a name; got {self.base[:80]!r}.")
        base = self.folder / under
        path = self.root / name.lstrip("/") if name.startswith("/") else base / name
        real = os.path.realpath(path)
        if os.path.commonpath([real, self.real_root]) != self.real_root:
            raise Dropped("leaves_folder", f"an image must lie in {self.root}; {name[:200]!r} leads out of it.")
        found = read_file(Path(real), "", max_bytes)
        if isinstance(found, Reject):
            raise Dropped(found.reason, found.message)
        return found


class WarcImages(Images):
    """Of pages in a WARC: the images that the same file holds, and what its sites reserve; found in one pass over it.
    16 bytes an image are kept. `heed`: whether headers that ask not to be used are heard."""

    def __init__(self, path: Path, max_bytes: int, heed: bool = True) -> None:
        self.path, self.heed = path, heed
        self.reservations: dict[str, Reservations] = {}
        keys, places = array("Q"), array("Q")
        for record in warc_records(path, max_bytes):
            if record.bad is not None or record.type == "metadata":
                continue
            if record.address.endswith("/.well-known/tdmrep.json") and record.status in (0, 200):
                self.reservations[_host(record.address)] = Reservations(record.body)
            elif record.content_type.startswith("image/") and record.status in (0, 200) and record.offset >= 0:
                keys.append(_key(record.address))
                places.append(record.offset)
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable") if keys else np.zeros(0, np.int64)
        self._keys = np.frombuffer(keys, np.uint64)[order] if keys else np.zeros(0, np.uint64)
        self._places = np.frombuffer(places, np.uint64)[order] if keys else np.zeros(0, np.uint64)

    def check(self, url: str) -> None:
        """Raise Refused where the site of a page reserved it in a tdmrep.json that the file holds."""
        host = _host(url)
        if host and (rules := self.reservations.get(host)) is not None:
            rules.check(urlsplit(url).path or "/")

    def find(self, source: str, url: str, max_bytes: int) -> bytes | None:
        """The bytes of the image's own record; None where the file has none. Raises Dropped: opt_out_..., ..."""
        at = int(np.searchsorted(self._keys, np.uint64(_key(url))))
        if at == len(self._keys) or int(self._keys[at]) != _key(url):
            return None
        record: WarcRecord
        try:
            record = read_record(self.path, int(self._places[at]), max_bytes)
            if record.address.partition("#")[0] != url.partition("#")[0]:
                return None
            if self.heed:
                check_headers(record.http)
        except (BadRecord, Refused) as error:
            raise Dropped(error.reason, error.message) from None
        return record.body


def _key(url: str) -> int:
    whole = url.partition("#")[0].encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
