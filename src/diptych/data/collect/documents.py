"""PDF files: pictures of their pages with the text, and figures with the captions that stand below or above them.

    diptych collect documents papers/ take=figures --out data/figures

Every PDF is a stranger's. Its size, its pages and the size in pixels of what a page would be drawn with are known
before anything is drawn; what is damaged, encrypted, or too large is rejected by name.
"""

import re
from collections.abc import Iterator
from itertools import islice
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
from diptych.data.page_layout import Box, Text, captions_of, figures_of, lines_of
from diptych.data.record_files import printable
from diptych.data.sources.source import Reject

POINTS_PER_INCH = 72.0
MOST_POINTS = 14_400.0
"""The longest side of a page that PDF 1.7 allows (annex C)."""
_RESERVED = re.compile(rb"tdm:reservation\s*(=\s*[\"']\s*1|>\s*1\s*<)")


class DocumentsConfig(CollectorConfig):
    """`path` is a PDF or a folder of them.

    take         "pages": a picture of each page with its text; "figures": pictures on it with their captions; "both"
    dpi          dots to the inch that pages and figures are drawn with; max_side: the longest side in pixels
    min_figure   the shorter side of a figure in points; min_share: its least share of the page's area
    reach        how far from its picture a caption may stand, as a share of the page's height
    max_pages, max_objects (of a page), max_text (characters of a page), max_megabytes (of a file), max_image_pixels
                 (of the pictures that a page is made of, together): what is more is rejected, undrawn
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
        _pdfium()
        for found in files_below(self.root, {".pdf"}):
            if isinstance(found, Reject):
                yield found
                continue
            name, path = found
            key = printable(name)
            try:
                data = self._bytes(path)
                yield from self._document(data, key, str(path))
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

    def _document(self, data: bytes, key: str, origin: str) -> Iterator[Record | Reject]:
        pdfium = _pdfium()
        try:
            document = pdfium.PdfDocument(data)
            count = len(document)
        except pdfium.PdfiumError as error:
            if "password" in str(error).lower() or "security" in str(error).lower():
                raise _Refused("encrypted", "a PDF must be open; this one asks for a password. Leave it out.") from None
            raise _Refused("broken_pdf", f"a PDF must be whole; got {error}. Fetch it again.") from None
        try:
            if count < 1:
                raise _Refused("no_pages", "a PDF must have pages; this one has none.")
            for number in range(1, min(count, self.config.max_pages) + 1):
                name = f"{key}/page-{number:04d}"
                try:
                    yield from self._page(document, number, name, origin)
                except (pdfium.PdfiumError, _Refused, ValueError, MemoryError) as error:
                    reason = error.reason if isinstance(error, _Refused) else "broken_page"
                    said = str(error) if isinstance(error, _Refused) else f"a page must be drawable; got {error}."
                    yield Reject(name, said, reason, f"{origin} page {number}")
            if count > self.config.max_pages:
                message = f"a PDF must have at most {self.config.max_pages:,} pages; got {count:,}. Raise max_pages."
                yield Reject(f"{key}/rest", message, "too_many_pages", origin)
        finally:
            document.close()

    def _page(self, document: Any, number: int, key: str, origin: str) -> Iterator[Record | Reject]:
        page = document[number - 1]
        try:
            width, height = page.get_size()
            if not (1 <= width <= MOST_POINTS and 1 <= height <= MOST_POINTS):
                raise _Refused(
                    "bad_page_size", f"a page must be 1 to {MOST_POINTS:.0f} points a side; got {width, height}."
                )
            pictures = self._pictures(page)
            runs, text = self._texts(page)
            meta = {"page": number, "pages": len(document)}
            place = f"page {number}"
            if self.config.take != "figures":
                pixels = self._draw(page, Box(0, 0, width, height), (width, height))
                yield self.from_here(self._record(key, pixels, text, meta), origin, place, "page")
            if self.config.take != "pages":
                yield from self._figures(page, pictures, runs, (key, meta, origin, place))
        finally:
            page.close()

    def _pictures(self, page: Any) -> list[Box]:
        """The boxes of a page's pictures, which are small enough all together to be drawn."""
        import pypdfium2.raw as raw

        boxes, pixels = list[Box](), 0
        objects = list(islice(page.get_objects(max_depth=6), self.config.max_objects + 1))
        if len(objects) > self.config.max_objects:
            most = self.config.max_objects
            raise _Refused(
                "too_many_objects", f"a page must have at most {most:,} objects; got more. Raise max_objects."
            )
        for item in objects:
            if item.type == raw.FPDF_PAGEOBJ_IMAGE:
                wide, high = item.get_px_size()
                pixels += wide * high
                boxes.append(Box(*item.get_bounds()))
        if pixels > self.config.max_image_pixels:
            most = self.config.max_image_pixels
            message = f"a page's pictures must have at most {most:,} pixels; got {pixels:,}. Raise max_image_pixels."
            raise _Refused("too_many_pixels", message)
        return boxes

    def _texts(self, page: Any) -> tuple[list[Text], str]:
        """The runs of a page's text with their places, in reading order, and the whole of it."""
        words = page.get_textpage()
        try:
            if words.count_chars() > self.config.max_text:
                most = self.config.max_text
                raise _Refused(
                    "text_too_long", f"a page must have at most {most:,} characters; got more. Raise max_text."
                )
            runs = list[Text]()
            if self.config.take != "pages":
                for i in range(words.count_rects()):
                    box = Box(*words.get_rect(i))
                    text = words.get_text_bounded(*box).replace("\r\n", " ").strip("\r\n\0")
                    if text.strip():
                        runs.append(Text(box, text))
            whole = words.get_text_bounded().replace("\r\n", "\n").replace("\0", "").strip()
        finally:
            words.close()
        return runs, whole

    def _figures(
        self, page: Any, pictures: list[Box], runs: list[Text], about: tuple[str, dict[str, Any], str, str]
    ) -> Iterator[Record | Reject]:
        key, meta, origin, place = about
        crop = Box(*page.get_cropbox())
        size = page.get_size()
        seen = [p.within(crop) for p in pictures]
        large, small = list[Box](), 0
        for box in seen:
            enough = box.width * box.height >= self.config.min_share * size[0] * size[1]
            if enough and min(box.width, box.height) >= self.config.min_figure:
                large.append(box)
            else:
                small += 1
        if small:  # one line a page: a rule or a bullet may be drawn as hundreds of pictures
            message = f"a figure must be larger; {small} pictures of the page are smaller. Lower min_figure, min_share."
            yield Reject(f"{key}/small", message, "figure_too_small", f"{origin} {place}")
        turned = page.get_rotation() % 360 != 0  # boxes are those of the page before it is turned
        found = figures_of(large, captions_of(lines_of(runs)), self.config.reach * crop.height)
        for number, figure in enumerate(found, 1):
            name = f"{key}/figure-{number}"
            if turned:
                yield Reject(name, "a figure must stand on an upright page; its page is turned.", "turned_page", origin)
                continue
            if not figure.caption:
                message = "a figure must have a caption below or above it; none was found. Raise reach."
                yield Reject(name, message, "no_caption", f"{origin} {place}")
                continue
            box = Box(*(round(v, 1) for v in figure.box))
            own = {**meta, "box": list(box), "parts": figure.parts, "caption_above": figure.above}
            moved = Box(box.left - crop.left, box.bottom - crop.bottom, box.right - crop.left, box.top - crop.bottom)
            pixels = self._draw(page, moved, size)
            yield self.from_here(self._record(name, pixels, figure.caption, own), origin, place, "figure")

    def _draw(self, page: Any, box: Box, size: tuple[float, float]) -> np.ndarray:
        """(h, w, 3) RGB of a part of a page: as a reader sees it, with whatever is drawn over its pictures."""
        scale = min(self.config.dpi / POINTS_PER_INCH, self.config.max_side / max(box.width, box.height, 1.0))
        cut = (box.left, box.bottom, size[0] - box.right, size[1] - box.top)
        bitmap = page.render(
            scale=scale, crop=tuple(max(0.0, c) for c in cut), may_draw_forms=False, rev_byteorder=True
        )
        try:
            return np.array(bitmap.to_numpy()[:, :, :3])
        finally:
            bitmap.close()

    def _record(self, key: str, pixels: np.ndarray, text: str, meta: dict[str, Any]) -> Record:
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        data = encode_png(tensor) if self.config.encoding == "png" else encode_jpeg(tensor)
        if text:
            return Record.pair(key, data, self.config.encoding, (text,), meta=meta)
        return Record(key, (Segment("image", data, self.config.encoding, role="image"),), meta)


def _pdfium() -> Any:
    try:
        import pypdfium2
    except ImportError:
        raise DataError(
            "a PDF must be read by pypdfium2; got a Python without it. Install it: pip install 'diptych[curate]'."
        ) from None
    return pypdfium2
