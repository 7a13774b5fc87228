"""When a host may be asked again, over all threads and processes of a download: a small file a host, locked."""

import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path


class HostClock:
    """Gives each request to a host its own time, at least `interval` seconds after the one before. `folder` is shared
    by all processes."""

    def __init__(self, folder: Path, interval: float) -> None:
        self.folder, self.interval = folder, interval
        folder.mkdir(parents=True, exist_ok=True)

    def wait(self, host: str, interval: float = 0.0, most: float = 60.0) -> None:
        """Sleep until it is this request's turn; `interval` where a host wants a longer one, up to `most`."""
        step = min(max(self.interval, interval), most)
        if step <= 0:
            return
        turn = self._take(host, step)
        time.sleep(max(0.0, turn - time.time()))

    def _take(self, host: str, step: float) -> float:
        """The time of this request; the next one's is written down."""
        path = self.folder / blake2b(host.encode(), digest_size=8).hexdigest()
        with path.open("a+") as file:
            with suppress(ImportError, OSError):  # a system without locks: a request may come a little early
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            noted = file.read()
            turn = max(time.time(), float(noted) if noted else 0.0)
            file.truncate(0)
            file.write(repr(turn + step))
            file.flush()
        return turn
