"""One way to show that work goes on: a bar in a terminal, a line now and then elsewhere, nothing on other ranks."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diptych.core.distributed import is_main

T = TypeVar("T")
console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line to the user (standard error, main rank only)."""
    if is_main():
        console.print(text, markup=False)


def track(items: Iterable[T], label: str, total: int | None = None, every_s: float = 10.0) -> Iterator[T]:
    """`items`, while showing how many have gone by, how fast, and how long it will take still."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not is_main():
        yield from items
        return
    if not console.is_terminal:
        yield from _lines(items, label, total, every_s)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    start, done = time.monotonic(), 0
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(label, total=total, rate="")
        for item in items:
            yield item
            done += 1
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=1, rate=f"{rate:,.0f}/s")


def _lines(items: Iterable[T], label: str, total: int | None, every_s: float) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            of = f" of {total:,}" if total else ""
            print(f"{label}: {done:,}{of} ({done / (now - start):,.0f}/s)", file=sys.stderr, flush=True)
