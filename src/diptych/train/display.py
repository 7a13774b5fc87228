"""What the user sees of a run: what is about to happen, how far it is, and what the doctor says."""

import time

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from diptych.core.distributed import is_main
from diptych.core.progress import console, say


class Display:
    """A bar in a terminal, a line at most every `every_s` seconds elsewhere, nothing on other ranks."""

    def __init__(self, total: int, done: int, every_s: float = 10.0) -> None:
        self.total, self.first, self.every_s = total, done, every_s
        self.start = self.last = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if is_main() and console.is_terminal:
            columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[words]}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=console)
            self._task = self._bar.add_task("", total=total, completed=done, words="")

    def __enter__(self) -> "Display":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, loss: float, rate: float, data_wait: float, memory_mb: float, mfu: float = 0.0) -> None:
        """Show that `done` samples are behind us. `rate` is in samples a second, `data_wait` a share of the time, `mfu`
        the share of the machine's arithmetic that the model gets (0: not known)."""
        now = time.monotonic()
        if not is_main() or (self._bar is None and now - self.last < self.every_s and done < self.total):
            return
        self.last = now
        speed = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / max(speed, 1e-9)
        words = (
            f"loss {loss:.3f}  {rate:,.0f}/s  {duration(left)} left  waiting for data {data_wait:.0%}  "
            f"{memory_mb / 1000:.1f} GB" + (f"  MFU {mfu:.0%}" if mfu else "")
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, words=f"{done:,}/{self.total:,}  {words}")
        else:
            say(f"{done:>12,} of {self.total:,} ({done / self.total:.0%})  {words}")


def header(lines: dict[str, str]) -> None:
    """Print facts under each other."""
    width = max(map(len, lines))
    say("\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items()))


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    s = round(min(seconds, 360_000_000))
    return f"{s // 3600}:{s % 3600 // 60:02d}:{s % 60:02d}" if s >= 3600 else f"{s // 60}:{s % 60:02d}"
