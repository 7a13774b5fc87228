"""Captions that hold an e-mail address, a telephone number or the address of a machine.

Only words are looked at. Faces have a filter of their own, `faces`, and are blurred at packing (`data/face_blur.py`).
"""

import ipaddress
import re
from typing import Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig

_EMAIL = re.compile(
    r"(?<![\w.+\-])[\w.+\-]{1,64}(?:@|\s?[\[(]at[\])]\s?)(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?"
    r"(?:\.|\s?[\[(]dot[\])]\s?)){1,8}[a-z]{2,24}(?![\w@])",
    re.I,
)
_PHONES = (
    # international: 7 to 15 digits (E.164)
    re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[\s.\-/()]{0,3}\d){6,14}(?!\w)"),
    # North America
    re.compile(r"(?<![\w(])(?:\(\d{3}\)\s?|\d{3}[\s.\-])\d{3}[\s.\-]\d{4}(?![\w\-])"),
    # France
    re.compile(r"(?<!\w)0[1-9](?:[\s.\-]\d{2}){4}(?!\w)"),
    # national, with the zero of long distance and 8 digits or more
    re.compile(r"(?<!\w)(?=(?:[\s/\-]?\d){8})0[1-9]\d{0,3}[\s/\-]\d{3,8}(?:[\s\-]\d{2,5}){0,3}(?!\w)"),
    # whatever is called one
    re.compile(
        r"\b(?:tel|telephone|phone|mobile|cell|fax|call|whatsapp|telefon|tlf)\b[.:\s#]{0,4}"
        r"\+?\d(?:[\s.\-/()]{0,2}\d){5,14}(?!\w)",
        re.I,
    ),
)
_IP = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")


class PersonalDataConfig(FilterConfig):
    """What is looked for. To learn of it without dropping anything, curate with this filter alone: its table names the
    records, and nothing is copied."""

    of: tuple[Literal["email", "phone", "ip_address"], ...] = Field(default=("email", "phone"), min_length=1)

    def build(self) -> "PersonalData":
        """The filter."""
        return PersonalData(self)


class PersonalData(Filter):
    """Reasons: email, phone, ip_address (one that is global). Any text of a record counts, since any may be shown to a
    model."""

    def __init__(self, config: PersonalDataConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first that is found."""
        further: list[list[str] | None] = [None] * len(rows)
        if "further_texts" in rows.table.column_names:
            further = rows.table["further_texts"].to_pylist()
        texts = [[*c, *(f or [])] for c, f in zip(rows.captions, further, strict=True)]
        return [next((found for t in said if (found := self._of(t))), "") for said in texts]

    def _of(self, text: str) -> str:
        return next((found for found in self.config.of if holds(found, text)), "")


def holds(what: Literal["email", "phone", "ip_address"], text: str) -> bool:
    """Whether a text holds such."""
    if what == "email":
        return ("@" in text or "at" in text.lower()) and _EMAIL.search(text) is not None
    if what == "phone":
        return any(p.search(text) for p in _PHONES)
    return any(_is_global(m) for m in _IP.findall(text))


def _is_global(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
