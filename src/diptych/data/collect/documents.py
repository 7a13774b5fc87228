"""PDF files: pictures of their pages with the text, and figures with the captions that stand below or above them.

    diptych collect documents papers/ take=figures --out data/figures

Every PDF is a stranger's. Its size, its pages and the size in pixels of what a page would be drawn with are known
before anything is drawn; what is damaged, encrypted, or too large is rejected by name. PDFium reads and draws in a
process of its own, with limits (`data/parser_process.py`): a page that brings it down is rejected by name too
(parser_crashed, parser_timed_out, parser_out_of_memory), and the next one goes on.
"""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.collect.collector import Collector, CollectorConfig
from diptych.data.decode import encode_jpeg, encode_png
from diptych.data.files_below import files_below
from diptych.data.parser_process import Answer, ParserFailed, ParserProcess
from diptych.data.pdf_parser import PageSettings
from diptych.data.record_files import printable
from diptych.data.sources.source import Reject

PARSER = "diptych.data.pdf_parser:pages"
MOST_FAILURES = 3
"""Pages of a document that may bring the parser down before its rest is left."""
_RESERVED = re.compile(rb"tdm:reservation\s*(=\s*[\"']\s*1|>\s*1\s*<)")


class DocumentsConfig(CollectorConfig):
    """`path` is a PDF or a folder of them.

    take         "pages": a picture of each page with its text; "figures": pictures on it with their captions; "both"
    dpi          dots to the inch that pages and figures are drawn with; max_side: the longest side in pixels
    min_figure   the shorter side of a figure in points; min_share: its least share of the page's area
    reach        how far from its picture a caption may stand, as a share of the page's height
    max_pages, max_objects (of a page), max_text (characters of a page), max_megabytes (of a file), max_image_pixels
                 (of the pictures that a page is made of, together): what is more is rejected, undrawn
    page_seconds, memory_gb   of the process that reads PDFs: processor time for a page, and all of its memory
    """

    take: Literal["pages", "figures", "both"] = "both"
    dpi: Annotated[float, Field(gt=0, le=600)] = 150.0
    max_side: Annotated[int, Field(ge=32, le=8192)] = 2048
    encoding: Literal["png", "jpg"] = "png"
    min_figure: Annotated[float, Field(ge=1)] = 48.0
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    reach: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_pages: Annotated[int, Field(ge=1)] = 2000
    max_objects: Annotated[int, Field(ge=1)] = 20_000
    max_text: Annotated[int, Field(ge=1)] = 100_000
    max_megabytes: Annotated[float, Field(gt=0)] = 256.0
    max_image_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    page_seconds: Annotated[float, Field(gt=0)] = 60.0
    memory_gb: Annotated[float, Field(ge=1)] = 4.0

    def build(self) -> "Documents":
        """The collector."""
        return Documents(self)


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Documents(Collector):
    """Records in the order of the files, and in them of the pages: the page (NAME/page-0001), then its figures
    (NAME/page-0001/figure-1). Meta: page, pages, and of a figure its parts and its box in points."""

    config: DocumentsConfig

    def __init__(self, config: DocumentsConfig) -> None:
        super().__init__(config)
        self.root = Path(config.path)
        self.images_only = False

    def records(self) -> Iterator[Record | Reject]:
        """Pages and figures. Raises DataError where pypdfium2 is missing or nothing is there."""
        if importlib.util.find_spec("pypdfium2") is None:
            raise DataError(
                "a PDF must be read by pypdfium2; got a Python without it. Install it: pip install 'diptych[curate]'."
            )
        with ParserProcess(PARSER, self.config.page_seconds, self.config.memory_gb) as parser:
            for found in files_below(self.root, {".pdf"}):
                if isinstance(found, Reject):
                    yield found
                    continue
                name, path = found
                key = printable(name)
                try:
                    yield from self._document(parser, self._bytes(path), key, str(path))
                except _Refused as error:
                    yield Reject(key, str(error), error.reason, str(path))

    def where(self, key: str) -> str:
        """The page in the file."""
        return str(self.root / key) if self.root.is_dir() else key

    def _bytes(self, path: Path) -> bytes:
        most = int(self.config.max_megabytes * 1e6)
        try:
            size = path.stat().st_size
            if size > most:
                message = f"a PDF must have at most {most:,} bytes; got {size:,}. Raise max_megabytes."
                raise _Refused("too_many_bytes", message)
            if not path.is_file():
                raise _Refused("not_a_file", f"a PDF must be an ordinary file; got {path}.")
            data = path.read_bytes()
        except OSError as error:
            raise _Refused("unreadable", f"a PDF must be readable; got {error.strerror} for {path}.") from None
        if b"%PDF-" not in data[:1024]:
            raise _Refused("not_a_pdf", f"a PDF must begin as one; {path.name} does not. Leave it out.")
        if _RESERVED.search(data):
            raise _Refused("opt_out_tdm_reservation", "a PDF must not reserve text and data mining; this one does.")
        return data

    def _document(self, parser: ParserProcess, data: bytes, key: str, origin: str) -> Iterator[Record | Reject]:
        """A PDF's pages; one that brings the parser down is named, and reading goes on behind it."""
        first, failures, count = 1, 0, 0
        while True:
            done, refused = first - 1, None
            try:
                for answer in parser.ask(self._wanted(first)._asdict(), data):
                    if "pages" in answer.said:
                        count = _whole(answer.said["pages"])
                    elif "done" in answer.said:
                        done = _whole(answer.said["done"])
                    elif "page" in answer.said:
                        yield self._item(answer, key, origin, count)
                    else:
                        refused = _Refused(str(answer.said.get("refused")), str(answer.said.get("message")))
                if refused is not None:
                    raise refused
                break
            except ParserFailed as error:
                failures += 1
                if not count:  # it could not even be opened
                    raise _Refused(error.reason, error.message) from None
                page = done + 1
                if page > min(count, self.config.max_pages):  # all had been read
                    break
                yield Reject(f"{key}/page-{page:04d}", error.message, error.reason, f"{origin} page {page}")
                if failures == MOST_FAILURES and page < count:
                    message = f"a PDF must be readable; {failures} of its pages ended the parser. Leave it out."
                    yield Reject(f"{key}/rest", message, error.reason, origin)
                if failures == MOST_FAILURES:
                    return
                first = page + 1
        if count > self.config.max_pages:
            message = f"a PDF must have at most {self.config.max_pages:,} pages; got {count:,}. Raise max_pages."
            yield Reject(f"{key}/rest", message, "too_many_pages", origin)

    def _wanted(self, first: int) -> PageSettings:
        named = {name: getattr(self.config, name) for name in PageSettings._fields if name != "first"}
        return PageSettings(**named, first=first)

    def _item(self, answer: Answer, key: str, origin: str, count: int) -> Record | Reject:
        """What the parser says, as a record or a reject. It is taken for what it must be: a child that says something
        else was damaged."""
        said = answer.said
        try:
            page = _whole(said["page"])
            place, name, meta = f"page {page}", f"{key}/page-{page:04d}", {"page": page, "pages": count}
            if "refused" in said:
                name += f"/{said['part']}" if said["part"] else ""
                return Reject(name, str(said["message"]), str(said["refused"]), f"{origin} {place}")
            if answer.array is None or answer.array.ndim != 3 or answer.array.shape[2] != 3:
                raise ValueError("a page must have pixels")
            if "figure" not in said:
                return self.from_here(self._record(name, answer.array, str(said["text"]), meta), origin, place, "page")
            box = [float(v) for v in said["box"]]
            own = {**meta, "box": box, "parts": int(said["parts"]), "caption_above": bool(said["above"])}
            figure = self._record(f"{name}/figure-{int(said['figure'])}", answer.array, str(said["caption"]), own)
            return self.from_here(figure, origin, place, "figure")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _damaged(error) from None

    def _record(self, key: str, pixels: np.ndarray, text: str, meta: dict[str, Any]) -> Record:
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        data = encode_png(tensor) if self.config.encoding == "png" else encode_jpeg(tensor)
        if text:
            return Record.pair(key, data, self.config.encoding, (text,), meta=meta)
        return Record(key, (Segment("image", data, self.config.encoding, role="image"),), meta)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise _damaged(value)
    return value


def _damaged(what: Any) -> ParserFailed:
    message = f"a parser must say what is on a page; it said something else ({str(what)[:60]}). Leave the file out."
    return ParserFailed("parser_crashed", message)
