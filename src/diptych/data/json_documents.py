"""A .json that is one document, as benchmarks come: what its beginning shows, and reading the whole of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.data.json_rows import JsonRow, first_object, json_rows
from diptych.data.sources.source import Look, Reject

_HEAD = 1 << 18
_SPACE = " \t\r\n"


def head_of(path: Path) -> Any:
    """The JSON value at the start of a file as far as its beginning shows it: of an object that goes on, the first
    entries, the last of them cut short likewise; of a list that goes on, the first items. None for what is no JSON."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            text = file.read(_HEAD)
    except OSError:
        return None
    return _begun(text.lstrip(_SPACE))


def _begun(text: str, depth: int = 0) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass
    if depth > 3 or not text.startswith(("{", "[")):
        return None
    return _begun_object(text, depth) if text[0] == "{" else _begun_list(text, depth)


def _begun_object(text: str, depth: int) -> Any:
    decoder, found, at = json.JSONDecoder(), dict[str, Any](), 1
    while True:
        try:
            key, after = decoder.raw_decode(text, _skip(text, at))
            if not isinstance(key, str) or text[(colon := _skip(text, after))] != ":":
                return found or None
            start = _skip(text, colon + 1)
        except (ValueError, IndexError, RecursionError):
            return found or None
        try:
            found[key], end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            if (cut := _begun(text[start:], depth + 1)) is not None:
                found[key] = cut
            return found or None
        at = end + 1 if text[(end := _skip(text, end)) : end + 1] == "," else end


def _begun_list(text: str, depth: int) -> Any:
    decoder, items, at = json.JSONDecoder(), list[Any](), 1
    while len(items) < 20:
        start = _skip(text, at)
        try:
            item, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            if not items and (cut := _begun(text[start:], depth + 1)) is not None:
                items.append(cut)
            break
        items.append(item)
        end = _skip(text, end)
        at = end + 1 if text[end : end + 1] == "," else end
    return items


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def first_row(found: Look, lines: bool = True) -> dict[str, Any]:
    """The first object of a list, of lines (if `lines`), or of an object of objects; {} where there is none."""
    if not found.is_file or found.suffix not in ("json", "jsonl", "ndjson"):
        return {}
    head = head_of(found.path) if found.suffix == "json" else None
    if isinstance(head, dict) and head and all(isinstance(v, dict) for v in head.values()):
        return next(iter(head.values()))
    row = head[0] if isinstance(head, list) and head else first_object(found) if lines else {}
    return row if isinstance(row, dict) else {}


def first_item(document: Any, name: str) -> dict[str, Any]:
    """The first object of the list that a document has under a name; {} where it has none."""
    listed = document.get(name) if isinstance(document, dict) else None
    item = listed[0] if isinstance(listed, list) and listed else {}
    return item if isinstance(item, dict) else {}


def document(path: Path, what: str, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The object in a file, without the entries called `leave_out` at any depth, which may be bulky. Raises DataError
    that says `what` the file should be."""
    hook: Callable[[dict[str, Any]], Any] | None = None
    if leave_out:

        def hook(entry: dict[str, Any]) -> dict[str, Any]:
            for name in leave_out & entry.keys():
                del entry[name]
            return entry

    try:
        with open(path, encoding="utf-8-sig") as file:
            value = json.load(file, object_hook=hook)
    except OSError as error:
        raise DataError(f"{what} must be readable; got {error.strerror} for {path}. Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} must be JSON; got {path}, which is not ({error}). Download it again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{what} must hold an object; got a {type(value).__name__} in {path}. Download it again.")
    return value


def listed(value: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """The objects of the list under a name. Raises DataError where there is no such list, or it holds other things."""
    items = value.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(
            f"{path} must hold a list of objects called {name!r}; got {', '.join(map(repr, value)) or 'nothing'}. "
            "Is it the right file?"
        )
    return items


def entries(path: Path) -> Iterator[JsonRow | Reject]:
    """(key, where, row) of a list, of lines, or of an object of objects, whose keys are then its own."""
    head = head_of(path)
    if path.suffix.lower() == ".json" and isinstance(head, dict) and all(isinstance(v, dict) for v in head.values()):
        for key, row in document(path, "a file of examples").items():
            where = f"{path} entry {key!r}"
            if isinstance(row, dict):
                yield key, where, row
            else:
                yield Reject(key, f"an entry must be a JSON object; got a {type(row).__name__}.", "bad_json", where)
        return
    yield from json_rows(path)
