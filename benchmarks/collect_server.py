"""A server of pictures from memory, in one thread: ``python -m benchmarks.collect_server FOLDER``.

It prints its port and answers until its standard input ends: ``/N.jpg`` is the (N mod count)-th file of the folder, all
else is not there. It does as little as a server can, so that a client's own work is what is measured.
"""

import argparse
import selectors
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOT_THERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BACKLOG = 4096


class Server:
    """Answers GETs with prepared bytes."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
        self.answers = [head.format(len(p)).encode() + p for p in pictures]
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self._ready = selectors.DefaultSelector()

    def serve(self, until: Any) -> None:
        """Answer until `until`, a file, can be read (it was closed)."""
        self._ready.register(self.socket, selectors.EVENT_READ)
        self._ready.register(until, selectors.EVENT_READ)
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is until:
                    return
                if key.fileobj is self.socket:
                    self._accept()
                elif isinstance(key.data, memoryview):
                    self._send(key.fileobj, key.data)
                else:
                    self._answer(key.fileobj)

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self.socket.accept()
                connection.setblocking(False)
                self._ready.register(connection, selectors.EVENT_READ)
        except BlockingIOError:
            return

    def _answer(self, connection: Any) -> None:
        try:
            asked = connection.recv(1 << 14)
        except OSError:
            asked = b""
        self._ready.unregister(connection)
        if not asked:
            connection.close()
            return
        self._send(connection, memoryview(self._of(asked)), new=True)

    def _of(self, asked: bytes) -> bytes:
        path = asked.split(b" ", 2)[1] if asked.count(b" ") >= 2 else b""
        name, dot, _ = path[1:].partition(b".jpg")
        return self.answers[int(name) % len(self.answers)] if dot and name.isdigit() else NOT_THERE

    def _send(self, connection: Any, left: memoryview, new: bool = False) -> None:
        try:
            left = left[connection.send(left) :]
        except BlockingIOError:
            pass
        except OSError:  # the client has gone
            left = left[len(left) :]
        if len(left):
            (self._ready.register if new else self._ready.modify)(connection, selectors.EVENT_WRITE, left)
            return
        if not new:
            self._ready.unregister(connection)
        connection.close()


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", type=Path)
    files = sorted(options.parse_args().folder.glob("*.jpg"))
    server = Server([f.read_bytes() for f in files])
    print(server.port, flush=True)
    server.serve(sys.stdin)


if __name__ == "__main__":
    main()
