"""Numbers read back out of RESULTS.md: what later arithmetic is made of."""

from pathlib import Path

from benchmarks.record import RESULTS


class NotMeasured(LookupError):
    """RESULTS.md does not hold what is asked for; the message says what to run."""


def newest(benchmark: str, path: Path = RESULTS) -> tuple[str, list[list[str]]]:
    """The date of the newest section of a benchmark, and the rows of its tables, heads among them. Raises
    NotMeasured."""
    text = path.read_text() if path.exists() else ""
    found = [s for s in text.split("\n## ")[1:] if s.startswith(f"{benchmark}, ")]
    if not found:
        raise NotMeasured(f"{path.name} must hold a run of {benchmark}; it holds none. Run: make bench-{benchmark}")
    lines = found[-1].splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return lines[0].partition(", ")[2], [r for r in rows if set("".join(r)) - set("-")]


def median(benchmark: str, what: str, side: str, path: Path = RESULTS) -> float:
    """The median of a side in the comparison called `what`. Raises NotMeasured."""
    at = ""
    for row in newest(benchmark, path)[1]:
        at = row[0] or at
        if at == what and len(row) > 2 and row[1].removesuffix(" *") == side:
            return value(row[2])
    raise NotMeasured(f"{path.name} must hold {what!r} of {side}; it does not. Run: make bench-{benchmark}")


def last_row(benchmark: str, first: str, path: Path = RESULTS) -> dict[str, str]:
    """The last row that begins with `first`, by the heads of its table. Raises NotMeasured."""
    return rows_of(benchmark, first, path)[-1]


def rows_of(benchmark: str, first: str, path: Path = RESULTS) -> list[dict[str, str]]:
    """All rows that begin with `first`, by the heads of their table. Raises NotMeasured."""
    head: list[str] = []
    found = list[dict[str, str]]()
    for row in newest(benchmark, path)[1]:
        if len(row) != len(head) or row[0] in ("curation", "what", "filter"):
            head = row
        elif row[0] == first:
            found.append(dict(zip(head, row, strict=True)))
    if not found:
        raise NotMeasured(f"{path.name} must hold {first!r}; it does not. Run: make bench-{benchmark}")
    return found


def value(cell: str) -> float:
    """The number that a cell begins with."""
    return float(cell.split()[0].replace(",", ""))
