"""Captions that say nothing of their picture, as the web has them: file names, addresses, buttons, notices, counters.

Of our own wording, and not taken from the filter that is judged on them: the kinds are what pages hold beside pictures.
"""

from collections.abc import Callable

import numpy as np

from diptych.core.seeds import numpy_generator

Generator = np.random.Generator

_STEMS = (
    *("final", "header", "front page", "team", "item", "slide", "new one", "scan", "export", "cover", "download"),
    *("unnamed", "holiday", "page", "attachment", "grafik", "upload", "cropped", "old version", "draft"),
)
_ENDINGS = ("jpg", "JPG", "png", "jpeg", "gif", "PNG", "webp", "tif")
_HOSTS = ("example.org", "pictures.example.com", "static.example.net", "shop.example.co.uk", "cdn.example.com")
_STOCK = (
    *("untitled", "Untitled", "image", "photo", "Picture", "no title", "(no caption)", "null", "undefined", "icon"),
    *("Unnamed image", "alt text", "image description", "add a description", "picture here", "test", "test image"),
    *("placeholder image", "Default picture", "drawing", "graphic", "unknown", "N/A", "-", "...", "new picture"),
    *("my image", "some picture", "artwork", "clip art", "product photo", "cover image", "preview", "thumb"),
)
_BUTTONS = (
    *("Click here", "click here for more", "Click on the picture to see it larger", "click image for full size"),
    *("Show more", "Read the full article", "Next page", "Back to top", "Share this", "share on social media"),
    *("Add to basket", "Buy it now", "Free download", "Download in high resolution", "Zoom in", "View gallery"),
    *(
        "view full screen",
        "Subscribe to our newsletter",
        "Log in to comment",
        "Loading, please wait",
        "Open in a new tab",
    ),
    *("See all pictures", "Print this page", "Close window", "Continue reading"),
)
_NOTICES = (
    "All rights reserved",
    "© {year} All rights reserved",
    "Copyright {year} by the author",
    "Photo: archive",
    "Image courtesy of the publisher",
    "This image may be subject to copyright",
    "Used with permission",
    "Source: internet",
    "Photo by admin",
    "Posted by admin on {day}.{month}.{year}",
    "Credit: press office",
    "Published {year}-{month:02d}-{day:02d}",
    "Photo credit: unknown",
    "for illustration only",
)
_COUNTERS = (
    *("Image {a} of {b}", "{a} / {b}", "picture {a}", "Figure {a}", "Fig. {a}", "Photo #{a}", "slide {a} of {b}"),
    *("page {a}", "{a}", "no. {a}", "Item {a}", "img {a} - {b}"),
)
_OTHERS = (
    *("sans titre", "Image sans titre", "ohne Titel", "Bild {a}", "Kein Bild vorhanden", "sin título", "imagen {a}"),
    *("haz clic aquí", "senza titolo", "immagine", "geen titel", "afbeelding {a}", "utan titel", "без названия"),
    *("無題", "图片{a}", "사진", "bez tytułu", "sem título", "cliquez pour agrandir"),
)


def boilerplate(*key: int | str) -> tuple[str, str]:
    """A caption that says nothing, and its kind (a key of `KINDS`): a pure function of `key`. Kinds are alike often."""
    draw = numpy_generator("boilerplate", *key)
    kind = list(KINDS)[int(draw.integers(len(KINDS)))]
    return KINDS[kind](draw), kind


def _one(draw: Generator, of: tuple[str, ...]) -> str:
    chosen = of[int(draw.integers(len(of)))]
    a, b = (int(n) for n in draw.integers(1, (40, 90)))
    day, month, year = int(draw.integers(1, 29)), int(draw.integers(1, 13)), int(draw.integers(1998, 2025))
    return chosen.format(a=a, b=a + b, day=day, month=month, year=year)


def _file_name(draw: Generator) -> str:
    stem = _one(draw, _STEMS).replace(" ", ("_", "-", " ", "")[int(draw.integers(4))])
    version = ("", "2", "_v3", "-copy", "(1)", " kopie", "_small", "-300x200")[int(draw.integers(8))]
    return f"{stem}{version}.{_one(draw, _ENDINGS)}"


def _camera(draw: Generator) -> str:
    number = int(draw.integers(1, 10_000))
    date = f"{draw.integers(2001, 2025)}{draw.integers(1, 13):02d}{draw.integers(1, 29):02d}"
    clock = f"{draw.integers(24):02d}{draw.integers(60):02d}{draw.integers(60):02d}"
    names = (f"IMG_{number:04d}", f"DSC{number:05d}", f"DSCN{number:04d}", f"P10{number:05d}", f"{date}_{clock}")
    more = (f"IMG_{date}_{clock}", f"Scan {number:04d}", f"100_{number:04d}", f"Screenshot {date}-{clock}")
    ending = ("", "", f".{_one(draw, _ENDINGS)}")[int(draw.integers(3))]
    return _one(draw, names + more) + ending


def _hash(draw: Generator) -> str:
    digits = bytes(draw.integers(0, 256, 16, dtype=np.uint8)).hex()
    parted = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return _one(draw, (digits, digits[:24], parted, f"{digits}.{_one(draw, _ENDINGS)}", f"{digits[:20]}_n"))


def _address(draw: Generator) -> str:
    number, host = int(draw.integers(1, 100_000)), _one(draw, _HOSTS)
    paths = (f"images/{number}.jpg", f"?p={number}", f"uploads/2014/05/pic-{number}.png", "", f"gallery/{number}/")
    return _one(draw, ("http://", "https://", "www.", "")) + host + "/" + _one(draw, paths)


KINDS: dict[str, Callable[[Generator], str]] = {
    "file name": _file_name,
    "camera": _camera,
    "hash": _hash,
    "address": _address,
    "stock words": lambda draw: _one(draw, _STOCK),
    "button": lambda draw: _one(draw, _BUTTONS),
    "notice": lambda draw: _one(draw, _NOTICES),
    "counter": lambda draw: _one(draw, _COUNTERS),
    "other language": lambda draw: _one(draw, _OTHERS),
}
"""What kinds there are, and how one is made of draws."""
