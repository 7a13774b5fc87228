"""What a model wrote about records, a line of JSON each, in order: cut anywhere, it is gone on with."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diptych.core.errors import ConfigError, DataError


class Written(NamedTuple):
    """What there is of one record.

    uid        of the record
    why        why it was left as it is; "": it was not
    written    the captions
    scores     the judge's, of those and of its `originals`; None: there is no judge
    """

    uid: str
    why: str = ""
    written: Sequence[str] = ()
    scores: Sequence[float] | None = None
    originals: Sequence[float] | None = None


class Journal:
    """A file whose first line says what it was made of: one that was made of something else is not gone on with."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.count = 0
        """Records that it holds."""
        if path.is_file():
            self.count = self._whole_lines() - 1
            if self.count >= 0:
                self._compare(header)
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header, sort_keys=True) + "\n", encoding="utf-8")
        self.count = 0

    def add(self, rows: list[Written]) -> None:
        """Append what there is of further records."""
        text = "".join(json.dumps(row._asdict(), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
        self.count += len(rows)

    def lines(self) -> Iterator[Written]:
        """All of it, from the first record on."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for number, line in enumerate(file, 2):
                try:
                    yield Written(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise DataError(
                        f"{self.path}, line {number}, must be what was written about a record; got {error}. Delete the "
                        "file, and start again."
                    ) from None

    def remove(self) -> None:
        """It has served."""
        self.path.unlink(missing_ok=True)

    def _whole_lines(self) -> int:
        """How many lines are whole; what stands behind the last of them is cut off."""
        count = end = 0
        with self.path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                count, end = count + 1, end + len(line)
            file.truncate(end)
        return count

    def _compare(self, header: dict[str, Any]) -> None:
        with self.path.open(encoding="utf-8") as file:
            first = file.readline()
        try:
            found = json.loads(first)
        except ValueError:
            found = {}
        wanted = json.loads(json.dumps(header))
        if found != wanted:
            names = ", ".join(sorted(k for k in wanted if not isinstance(found, dict) or found.get(k) != wanted[k]))
            raise ConfigError(
                f"{self.path} must be of the same data, models and settings to be gone on with; it is of another "
                f"{names}. Delete it to begin anew, or name another --out."
            )
