"""Pairs and pages out of HTML: saved pages, folders of them, WARC and WAT files, by rules that have names.

    laion        the alt text, by LAION's limits of address, length, bytes and format
    cc2dataset   any alt text of an <img> with a link
    figure       a figure's images with its figcaption
    surrounding  the paragraph nearest to an image
    interleaved  whole pages of texts and images in turn, by OBELICS's rules

An image that is here (beside the page, in the WARC, in the page) is packed; one that is only a link goes into the table
`links`, for `diptych collect urls`. What a page says of being used (headers, meta, tdmrep.json) is heard first.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record, Segment
from diptych.data.collect.collector import Collector, CollectorConfig, NothingToPack
from diptych.data.collect.interleaved import (
    STOP_WORDS,
    InterleavedLimits,
    InterleavedReader,
    WordLists,
    check_document,
    check_image,
    check_shown,
    documents,
    paragraph_reason,
)
from diptych.data.collect.licences import is_creative_commons, spdx
from diptych.data.collect.link_table import LinkTable
from diptych.data.collect.page import MOST_IMAGES, Page, PageImage, Reader
from diptych.data.collect.page_images import FolderImages, Images, NoImages, WarcImages, embedded
from diptych.data.collect.page_rules import RULES, Dropped, absolute, check_source, uid_of_link, web_address
from diptych.data.collect.page_tokens import decode_page
from diptych.data.collect.warc import SUFFIXES, BadRecord, WarcRecord, warc_records, wat_metadata
from diptych.data.image_header import sniff
from diptych.data.sources.source import Reject
from diptych.data.web.opt_out import Reservations, check_headers, check_meta
from diptych.data.web.refused import Refused

PAGES = (".html", ".htm", ".xhtml")
HTML_TYPES = ("text/html", "application/xhtml+xml")


class HtmlConfig(CollectorConfig):
    """Where pages are and what is taken of them.

    path        an .html file, a .warc or .wat (.gz too), or a folder of them
    rule        by which images get words: laion, cc2dataset, figure, surrounding; or interleaved
    links       a .parquet or .jsonl to write what is only a link into; "": such images are rejected as only_a_link
    robots      "heed": who asks not to be used is rejected; "ignore": for one's own pages
    page_bytes  that a page has at most
    own_images  whether the images in a WARC are looked up, and the tdmrep.json of its sites, which takes a pass over
                it before
    stop_words  of interleaved pages: "english", the path of a file of words, or "" for none
    flagged_words, common_words  paths of files of words; "": not asked
    """

    rule: Literal["laion", "cc2dataset", "figure", "surrounding", "interleaved"] = "laion"
    links: str = ""
    robots: Literal["heed", "ignore"] = "heed"
    page_bytes: int = Field(default=16 << 20, ge=1)
    own_images: bool = True
    stop_words: str = "english"
    flagged_words: str = ""
    common_words: str = ""
    limits: InterleavedLimits = InterleavedLimits()

    def build(self) -> "Html":
        """The collector."""
        return Html(self)


@dataclass(slots=True)
class _Found:
    """A page with what is known around it. `key` begins the keys of its records, `origin` is the file, `place` where
    in it; `address` the page's own, "": not known."""

    key: str
    origin: str
    place: str
    address: str
    page: Page
    images: Images

    @property
    def base(self) -> str:
        """At which its links start."""
        return absolute(self.page.base, self.address) if self.page.base else self.address


class Html(Collector):
    """Records of pages, in the order of files, records and images; all else of them as rejects, or in the links."""

    config: HtmlConfig

    def __init__(self, config: HtmlConfig) -> None:
        super().__init__(config)
        self.path = Path(config.path)
        if not self.path.exists():
            raise DataError(f"pages must be there; {config.path} is not. Check the path.")
        self.root = self.path if self.path.is_dir() else self.path.parent
        stop = STOP_WORDS if config.stop_words == "english" else _words(config.stop_words)
        self.lists = WordLists(stop=stop, flagged=_words(config.flagged_words), common=_words(config.common_words))
        self._links, self._next = LinkTable(""), ""

    def records(self) -> Iterator[Record | Reject]:
        """Every pair or page. Raises NothingToPack where there was nothing but links, which then are in their table."""
        self._next = ""
        kept, rejected = 0, Counter[str]()
        with LinkTable(self.config.links) as self._links:
            for file in self._files():
                for item in self._of_file(file):
                    kept += isinstance(item, Record)
                    if isinstance(item, Reject):
                        rejected[item.reason] += 1
                    yield item
        if self._links.rows:
            self._next = (
                f"Wrote {self._links.rows:,} links into {self.config.links}. Fetch them: diptych collect urls "
                f"{self.config.links}"
            )
        if not kept and self._links.rows:
            left = ", ".join(f"{n:,} {reason}" for reason, n in rejected.most_common())
            why = f"No image is here, so nothing was packed{f' (rejected: {left})' if left else ''}."
            self._next = f"{why} {self._next}"
            raise NothingToPack(self._next)

    def next_step(self) -> str:
        """How the links that were written are fetched."""
        return self._next

    def _files(self) -> Iterator[Path]:
        if not self.path.is_dir():
            if not self.path.name.lower().endswith((*PAGES, *SUFFIXES)):
                raise DataError(f"pages must be in {', '.join((*PAGES, *SUFFIXES))} files; got {self.path.name}.")
            yield self.path
            return
        found = False
        for folder, below, names in os.walk(self.path):
            below.sort()
            for name in sorted(names):
                if name.lower().endswith((*PAGES, *SUFFIXES)):
                    found = True
                    yield Path(folder) / name
        if not found:
            raise DataError(f"{self.path} must hold pages ({', '.join((*PAGES, *SUFFIXES))}); it holds none.")

    def _of_file(self, file: Path) -> Iterator[Record | Reject]:
        name = file.relative_to(self.root).as_posix()
        if file.name.lower().endswith(PAGES):
            yield from self._saved(file, name)
            return
        images = WarcImages(file, self.max_bytes, self.config.robots == "heed") if self.config.own_images else None
        for record in warc_records(file, max(self.config.page_bytes, self.max_bytes)):
            key, where = f"{name}#{record.number}", f"{file} record {record.number} {record.address}"
            if record.bad is not None:
                yield Reject(key, record.bad.message, record.bad.reason, where)
                continue
            yield from self._heard(key, where, self._record(record, key, str(file), images))

    def _saved(self, file: Path, name: str) -> Iterator[Record | Reject]:
        """A page that is a file of its own."""
        where = str(file)
        try:
            size = file.stat().st_size
            if size > self.config.page_bytes or not file.is_file():
                message = f"a page must be a file of at most {self.config.page_bytes:,} bytes; got {size:,}."
                yield Reject(name, f"{message} Raise page_bytes.", "page_too_large", where, size)
                return
            raw = file.read_bytes()
        except OSError as error:
            yield Reject(name, f"a page must be readable; got {error.strerror}.", "unreadable", where)
            return

        def found() -> Iterator[_Found]:
            reserved = self.root / ".well-known" / "tdmrep.json"
            if self.config.robots == "heed" and reserved.is_file() and reserved.stat().st_size < 1 << 20:
                Reservations(reserved.read_bytes()).check(f"/{name}")
            page = self._read(decode_page(raw))
            images = FolderImages(self.root, file, page.base, bool(page.address))
            yield _Found(name, where, "", page.address, page, images)

        yield from self._heard(name, where, found())

    def _record(self, record: WarcRecord, key: str, origin: str, images: WarcImages | None) -> Iterator[_Found]:
        """The page that a WARC's record is, if it is one."""
        place = f"record {record.number}"
        if record.type == "metadata":
            answer = wat_metadata(record)
            if answer:
                if self.config.rule not in RULES or RULES[self.config.rule].texts:
                    raise ConfigError(
                        f"the rule for WAT files must be laion or cc2dataset, since they hold no text; got "
                        f"{self.config.rule}. Take the WARC files for it."
                    )
                page = _page_of_wat(answer, self.config.rule)
                self._hear(_lower(answer.get("Headers")), page, answer["address"], images)
                yield _Found(key, origin, place, answer["address"], page, NoImages())
            return
        if record.content_type not in HTML_TYPES:
            return
        if record.status not in (0, 200):
            raise Dropped("http_status", f"a page must be an answer of 200; got {record.status}.")
        if len(record.body) > self.config.page_bytes:
            raise Dropped("page_too_large", f"a page must have {self.config.page_bytes:,} bytes at most; got more.")
        self._hear(record.http, None, record.address, images)
        page = self._read(decode_page(record.body, record.charset))
        yield _Found(key, origin, place, record.address, page, images or NoImages())

    def _heard(self, key: str, where: str, pages: Iterator[_Found]) -> Iterator[Record | Reject]:
        """What pages give, or one reject that says why one is left alone."""
        try:
            for found in pages:
                if self.config.rule == "interleaved":
                    yield from self._documents(found)
                else:
                    yield from self._pairs(found)
                if (more := found.page.seen_images - MOST_IMAGES) > 0:
                    message = f"a page must have at most {MOST_IMAGES:,} images; got {more:,} more, which are left."
                    yield Reject(f"{key}#more", message, "too_many_images", where)
        except (Dropped, Refused, BadRecord) as error:
            yield Reject(key, error.message, error.reason, where)

    def _read(self, text: str) -> Page:
        page = (InterleavedReader() if self.config.rule == "interleaved" else Reader()).read(text)
        self._hear({}, page, "", None)
        return page

    def _hear(self, headers: dict[str, str], page: Page | None, address: str, images: WarcImages | None) -> None:
        """Raise Refused where headers, a page's meta or its site ask not to be used."""
        if self.config.robots == "ignore":
            return
        check_headers(headers)
        if page is not None:
            check_meta(page.meta)
        if images is not None and address:
            images.check(address)

    def _bytes(self, image: PageImage, found: _Found) -> bytes | None:
        """An image that is here; None for a link. Raises Dropped."""
        here = embedded(image.source, self.max_bytes)
        if here is None:
            here = found.images.find(image.source, absolute(image.source, found.base), self.max_bytes)
        return here

    def _pairs(self, found: _Found) -> Iterator[Record | Reject]:
        rule, page = RULES[self.config.rule], found.page
        licence = page.licence or (page.cc_link if self.config.rule == "laion" else "")
        for image in page.images:
            key = f"{found.key}#{image.number}"
            place = f"{found.place} image {image.number}".strip()
            try:
                check_source(image.source, rule.refused)
                caption = rule.caption(page, image)
                data = self._bytes(image, found)
                if data is None:
                    url = rule.address(absolute(image.source, found.base))
                    self._link(found, url, caption, place, licence)
                    continue
                rule.data(data)
            except Dropped as dropped:
                yield Reject(key, dropped.message, dropped.reason, f"{found.origin} {place}")
                continue
            meta = {"page": found.address, "title": page.title.strip()[:300], "image": image.source[:500]}
            meta = {k: v for k, v in meta.items() if v and not v.startswith("data:")}
            record = Record.pair(key, data, sniff(data) or "jpg", (caption,), meta=meta)
            yield self.from_here(record, found.origin, place, self.config.rule, licence)

    def _link(self, found: _Found, url: str, caption: str, place: str, licence: str) -> None:
        if not self.config.links:
            raise Dropped(
                "only_a_link", f"an image must be here to be packed; got the link {url[:200]}. Set links=links.parquet."
            )
        row = {"url": url, "caption": caption, "uid": uid_of_link(caption, url), "rule": self.config.rule}
        licence = licence or self.config.licence
        if not self._links.add(**row, page=found.address, origin=found.origin, place=place, licence=licence):
            raise Dropped("duplicate_link", f"a link must be new with its caption; {url[:200]} came before.")

    def _documents(self, found: _Found) -> Iterator[Record | Reject]:
        page = found.page
        for number, items in enumerate(documents(page.items)):
            key = f"{found.key}#{number}" if number else found.key
            where = f"{found.origin} {found.place}".strip()
            segments, texts, dropped = list[Segment](), list[str](), Counter[str]()
            for item in items:
                if isinstance(item, str):
                    kept = self._paragraphs(item, dropped)
                    if kept:
                        texts.append(kept)
                        segments.append(Segment("text", (kept,), "txt", role="caption"))
                    continue
                try:
                    segments.append(self._page_image(item, found))
                except Dropped as why:
                    place = f"{where} image {item.number}"
                    yield Reject(f"{found.key}#image{item.number}", why.message, why.reason, place)
            try:
                images = sum(s.modality == "image" for s in segments)
                check_document(texts, images, self.config.limits, self.lists)
            except Dropped as why:
                yield Reject(key, why.message, why.reason, where)
                continue
            meta: dict[str, Any] = {"page": found.address, "title": page.title.strip()[:300]}
            meta |= {"dropped_paragraphs": dict(sorted(dropped.items()))}
            record = Record(key, tuple(_merged(segments)), {k: v for k, v in meta.items() if v})
            yield self.from_here(record, found.origin, found.place, "obelics", page.licence)

    def _paragraphs(self, text: str, dropped: Counter[str]) -> str:
        """The paragraphs of a text that stay, apart by empty lines."""
        kept = list[str]()
        for paragraph in text.split("\n\n"):
            reason = paragraph_reason(paragraph, self.config.limits, self.lists)
            if reason:
                dropped[reason] += 1
            else:
                kept.append(paragraph.strip())
        return "\n\n".join(kept)

    def _page_image(self, image: PageImage, found: _Found) -> Segment:
        check_source(image.source, ())
        check_shown(image, self.config.limits)
        data = self._bytes(image, found)
        if data is None:
            url = web_address(absolute(image.source, found.base))
            self._link(found, url, image.alt, f"{found.place} image {image.number}".strip(), found.page.licence)
            raise Dropped("left_as_link", f"a page's image must be here; {url[:200]} was written to the links.")
        check_image(data, self.config.limits)
        return Segment("image", data, sniff(data) or "jpg", role="image")


def _merged(segments: list[Segment]) -> Iterator[Segment]:
    """Segments with neighbouring texts joined, where an image between them was left out."""
    waiting = list[str]()
    for segment in segments:
        if segment.modality == "text":
            waiting.append(segment.texts[0])
            continue
        if waiting:
            yield Segment("text", ("\n\n".join(waiting),), "txt", role="caption")
            waiting.clear()
        yield segment
    if waiting:
        yield Segment("text", ("\n\n".join(waiting),), "txt", role="caption")


def _page_of_wat(answer: dict[str, Any], rule: str) -> Page:
    """What a WAT's record tells of a page: its links with their alt texts, its meta, its base, its licence.

    cc2dataset takes the links of ``IMG@/src``; LAION every link that has an alt text.
    """
    page, html = Page(), answer["HTML-Metadata"]
    head = html.get("Head") if isinstance(html.get("Head"), dict) else {}
    page.base = str(head.get("Base") or "")[:2000]
    page.title = str(head.get("Title") or "")[:1000]
    for meta in _list(head.get("Metas")):
        if isinstance(meta, dict):
            name = meta.get("name") or meta.get("property") or meta.get("http-equiv") or ""
            page.meta.append((str(name), str(meta.get("content") or "")))
    for link in [*_list(head.get("Link")), *_list(html.get("Links"))]:
        if not isinstance(link, dict) or not isinstance(link.get("url"), str):
            continue
        url, alt = link["url"], link.get("alt")
        if "license" in str(link.get("rel", "")).lower().split() and not page.licence:
            page.licence = spdx(url)
        if not page.cc_link and is_creative_commons(url):
            page.cc_link = spdx(url)
        path = str(link.get("path", ""))
        if path == "IMG@/src" or (rule == "laion" and alt):
            page.add_image({"src": url, "alt": alt if isinstance(alt, str) else ""}, url.strip())
    return page


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lower(headers: Any) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {str(k).lower(): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {}


def _words(path: str) -> frozenset[str]:
    if not path:
        return frozenset()
    try:
        return frozenset(Path(path).read_text(encoding="utf-8").lower().split())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"a list of words must be a UTF-8 file, words apart by spaces; got {path} ({error})."
        ) from None
