"""Where things stand on a page: runs of text to lines, lines to captions, captions to pictures.

Lengths are points, y grows upwards, as in a PDF. Nothing here knows of any file format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CAPTION = re.compile(
    r"\s*(figure|fig|photo|plate|chart|scheme|abbildung|abb|bild|figura|diagram|illustration|image)s?\b\.?\s*"
    r"(s?\d{1,4}|[ivxlc]{1,6}|[a-h]\d{0,3})?([.-]\d{1,3})?\s*[a-z]?\s*[:.|–—-]",
    re.IGNORECASE,
)
"""How the caption of a figure begins: "Figure 3: ", "Fig. 3. ", "Abb. 2.1 - "."""
MOST_CAPTION_LINES = 40


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def joined(self, other: "Box") -> "Box":
        """The smallest box that holds both."""
        return Box(
            min(self.left, other.left),
            min(self.bottom, other.bottom),
            max(self.right, other.right),
            max(self.top, other.top),
        )

    def within(self, other: "Box") -> "Box":
        """What of it lies in the other; of no size where they do not meet."""
        left, bottom = max(self.left, other.left), max(self.bottom, other.bottom)
        return Box(left, bottom, max(left, min(self.right, other.right)), max(bottom, min(self.top, other.top)))

    @property
    def width(self) -> float:
        """From left to right."""
        return float(self.right - self.left)

    @property
    def height(self) -> float:
        """From bottom to top."""
        return float(self.top - self.bottom)

    def shared_width(self, other: "Box") -> float:
        """How far they lie above one another."""
        return float(min(self.right, other.right) - max(self.left, other.left))


@dataclass(frozen=True)
class Text:
    """Some text and where it stands: a run, a line, a caption."""

    box: Box
    text: str


@dataclass(frozen=True)
class Figure:
    """A picture with its caption ("": none was found), its number of parts, and whether the caption stands above."""

    box: Box
    caption: str
    parts: int = 1
    above: bool = False


def lines_of(runs: Sequence[Text]) -> list[Text]:
    """Runs joined to lines: neighbours that stand at one height, at most a letter's breadth or two apart."""
    lines = list[Text]()
    for run in runs:
        last = lines[-1] if lines else None
        if last is not None:
            height = max(min(last.box.height, run.box.height), 1e-3)
            shared = min(last.box.top, run.box.top) - max(last.box.bottom, run.box.bottom)
            gap = run.box.left - last.box.right
            if shared > 0.5 * height and -height < gap < 1.5 * max(last.box.height, run.box.height):
                glue = " " if gap > 0.15 * height and not last.text.endswith(" ") else ""
                lines[-1] = Text(last.box.joined(run.box), last.text + glue + run.text)
                continue
        lines.append(run)
    return lines


def captions_of(lines: Sequence[Text]) -> list[Text]:
    """The captions among lines in reading order: one that begins as a caption does, with those close below it."""
    captions = list[Text]()
    for place, line in enumerate(lines):
        if not CAPTION.match(line.text):
            continue
        box, texts, last = line.box, [line.text.strip()], line.box
        for more in lines[place + 1 : place + MOST_CAPTION_LINES]:
            gap = last.bottom - more.box.top
            size = max(last.height, more.box.height)
            same = more.box.shared_width(box) > 0.3 * min(more.box.width, box.width)
            if not -0.5 * size < gap < 0.8 * size or not same or CAPTION.match(more.text):
                break
            if not 0.6 < more.box.height / max(last.height, 1e-3) < 1.7:
                break
            box, last = box.joined(more.box), more.box
            texts.append(more.text.strip())
        captions.append(Text(box, unbroken(texts)))
    return captions


def unbroken(lines: Sequence[str]) -> str:
    """Lines as one text; a word that a hyphen divides at the end of a line is whole again."""
    text = ""
    for line in lines:
        if text.endswith("-") and len(text) > 1 and text[-2].isalpha() and line[:1].islower():
            text = text[:-1] + line
        else:
            text = f"{text} {line}".strip()
    return re.sub(r"\s+", " ", text.replace("\u00ad", "")).strip()


def figures_of(pictures: Sequence[Box], captions: Sequence[Text], reach: float) -> list[Figure]:
    """Each picture with the nearest caption below or above it, at most `reach` away (below wins a tie).

    Pictures that share a caption are the parts of one figure.
    """
    parts: dict[int, list[Box]] = {}
    above: dict[int, bool] = {}
    order = list[tuple[int, Box]]()
    for picture in pictures:
        best, found = reach, -1
        for place, caption in enumerate(captions):
            if picture.shared_width(caption.box) <= 0.3 * min(picture.width, caption.box.width):
                continue
            slack = 0.25 * picture.height  # a box may reach a little into its caption
            below, over = picture.bottom - caption.box.top, caption.box.bottom - picture.top
            for distance, is_above in ((below, False), (over, True)):
                if -slack <= distance and max(distance, 0.0) < best:
                    best, found = max(distance, 1e-6), place
                    above[place] = is_above if place not in parts else above[place]
        if found >= 0:
            parts.setdefault(found, []).append(picture)
        order.append((found, picture))
    figures, done = list[Figure](), set[int]()
    for found, picture in order:
        if found < 0:
            figures.append(Figure(picture, ""))
        elif found not in done:
            done.add(found)
            box = parts[found][0]
            for part in parts[found][1:]:
                box = box.joined(part)
            figures.append(Figure(box, captions[found].text, len(parts[found]), above[found]))
    return figures
