"""What is on the pages of a PDF, by PDFium: runs in a process of its own (`parser_process`), knows nothing of records.

Its answers are, in order: {pages: N}; of each page a {page: n, text} with its pixels (unless only figures are wanted),
{figure: i, page: n, caption, box, parts, above} with its pixels, {refused: reason, message, page: n, part}, and
{done: n}. What is wrong with the whole file is a {refused: reason, message} without a page.
"""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from diptych.data.page_layout import Box, Text, captions_of, figures_of, lines_of
from diptych.data.parser_process import Answers

POINTS_PER_INCH = 72.0
MOST_POINTS = 14_400.0
"""The longest side of a page that PDF 1.7 allows (annex C)."""


class PageSettings(NamedTuple):
    """What is wanted of a PDF, from page `first` on; the rest as `diptych.data.collect.documents` says."""

    take: str
    dpi: float
    max_side: int
    min_figure: float
    min_share: float
    reach: float
    max_pages: int
    max_objects: int
    max_text: int
    max_image_pixels: int
    first: int = 1


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def pages(about: dict[str, Any], data: bytes) -> Answers:
    """Answers about a PDF's pages; `about` are PageSettings."""
    import pypdfium2 as pdfium

    wanted = PageSettings(**about)
    try:
        document = pdfium.PdfDocument(data)
        count = len(document)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            yield _refusal("encrypted", "a PDF must be open; this one asks for a password. Leave it out.")
        else:
            yield _refusal("broken_pdf", f"a PDF must be whole; got {error}. Fetch it again.")
        return
    try:
        if count < 1:
            yield _refusal("no_pages", "a PDF must have pages; this one has none.")
            return
        yield {"pages": count}, None
        for number in range(wanted.first, min(count, wanted.max_pages) + 1):
            try:
                yield from _page(document, number, wanted)
            except (pdfium.PdfiumError, _Refused, ValueError) as error:
                reason = error.reason if isinstance(error, _Refused) else "broken_page"
                said = str(error) if isinstance(error, _Refused) else f"a page must be drawable; got {error}."
                yield _refusal(reason, said, page=number, part="")
            yield {"done": number}, None
    finally:
        document.close()


def _refusal(reason: str, message: str, **where: Any) -> tuple[dict[str, Any], None]:
    return {"refused": reason, "message": message, **where}, None


def _page(document: Any, number: int, wanted: PageSettings) -> Answers:
    page = document[number - 1]
    try:
        width, height = page.get_size()
        if not (1 <= width <= MOST_POINTS and 1 <= height <= MOST_POINTS):
            raise _Refused(
                "bad_page_size", f"a page must be 1 to {MOST_POINTS:.0f} points a side; got {width, height}."
            )
        pictures = _pictures(page, wanted)
        runs, text = _texts(page, wanted)
        if wanted.take != "figures":
            pixels = _draw(page, Box(0, 0, width, height), (width, height), wanted)
            yield {"page": number, "text": text}, pixels
        if wanted.take != "pages":
            yield from _figures(page, number, pictures, runs, wanted)
    finally:
        page.close()


def _pictures(page: Any, wanted: PageSettings) -> list[Box]:
    """The boxes of a page's pictures, which are small enough all together to be drawn."""
    import pypdfium2.raw as raw

    boxes, pixels = list[Box](), 0
    objects = list(islice(page.get_objects(max_depth=6), wanted.max_objects + 1))
    if len(objects) > wanted.max_objects:
        most = wanted.max_objects
        raise _Refused("too_many_objects", f"a page must have at most {most:,} objects; got more. Raise max_objects.")
    for item in objects:
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            wide, high = item.get_px_size()
            pixels += wide * high
            boxes.append(Box(*item.get_bounds()))
    if pixels > wanted.max_image_pixels:
        most = wanted.max_image_pixels
        message = f"a page's pictures must have at most {most:,} pixels; got {pixels:,}. Raise max_image_pixels."
        raise _Refused("too_many_pixels", message)
    return boxes


def _texts(page: Any, wanted: PageSettings) -> tuple[list[Text], str]:
    """The runs of a page's text with their places, in reading order, and the whole of it."""
    words = page.get_textpage()
    try:
        if words.count_chars() > wanted.max_text:
            most = wanted.max_text
            raise _Refused("text_too_long", f"a page must have at most {most:,} characters; got more. Raise max_text.")
        runs = list[Text]()
        if wanted.take != "pages":
            for i in range(words.count_rects()):
                box = Box(*words.get_rect(i))
                text = words.get_text_bounded(*box).replace("\r\n", " ").strip("\r\n\0")
                if text.strip():
                    runs.append(Text(box, text))
        whole = words.get_text_bounded().replace("\r\n", "\n").replace("\0", "").strip()
    finally:
        words.close()
    return runs, whole


def _figures(page: Any, number: int, pictures: list[Box], runs: list[Text], wanted: PageSettings) -> Answers:
    crop = Box(*page.get_cropbox())
    size = page.get_size()
    large, small = _by_size([p.within(crop) for p in pictures], size, wanted)
    if small:  # one line a page: a rule or a bullet may be drawn as hundreds of pictures
        message = f"a figure must be larger; {small} pictures of the page are smaller. Lower min_figure, min_share."
        yield _refusal("figure_too_small", message, page=number, part="small")
    turned = page.get_rotation() % 360 != 0  # boxes are those of the page before it is turned
    found = figures_of(large, captions_of(lines_of(runs)), wanted.reach * crop.height)
    for i, figure in enumerate(found, 1):
        where = {"page": number, "part": f"figure-{i}"}
        if turned:
            yield _refusal("turned_page", "a figure must stand on an upright page; its page is turned.", **where)
        elif not figure.caption:
            message = "a figure must have a caption below or above it; none was found. Raise reach."
            yield _refusal("no_caption", message, **where)
        else:
            box = Box(*(round(v, 1) for v in figure.box))
            moved = Box(box.left - crop.left, box.bottom - crop.bottom, box.right - crop.left, box.top - crop.bottom)
            about = {"caption": figure.caption, "box": list(box), "parts": figure.parts, "above": figure.above}
            yield {"figure": i, "page": number, **about}, _draw(page, moved, size, wanted)


def _by_size(boxes: list[Box], size: tuple[float, float], wanted: PageSettings) -> tuple[list[Box], int]:
    """The boxes that are large enough to be figures, and how many are not."""
    large = [
        box
        for box in boxes
        if box.width * box.height >= wanted.min_share * size[0] * size[1]
        and min(box.width, box.height) >= wanted.min_figure
    ]
    return large, len(boxes) - len(large)


def _draw(page: Any, box: Box, size: tuple[float, float], wanted: PageSettings) -> np.ndarray:
    """(h, w, 3) RGB of a part of a page: as a reader sees it, with whatever is drawn over its pictures."""
    scale = min(wanted.dpi / POINTS_PER_INCH, wanted.max_side / max(box.width, box.height, 1.0))
    cut = (box.left, box.bottom, size[0] - box.right, size[1] - box.top)
    bitmap = page.render(scale=scale, crop=tuple(max(0.0, c) for c in cut), may_draw_forms=False, rev_byteorder=True)
    try:
        return np.array(bitmap.to_numpy()[:, :, :3])
    finally:
        bitmap.close()
