"""A server on loopback that does what servers should not, by the path that it is asked for."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Behaviour = Callable[[socket.socket, str], None]


def answer(body: bytes = b"ok", status: str = "200 OK", **headers: str) -> bytes:
    """A plain answer; underscores in header names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    if "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def slow_body(sock: socket.socket, _: str) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(200):
        sock.sendall(b"x")
        time.sleep(0.05)


def slow_headers(sock: socket.socket, _: str) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    for i in range(200):
        sock.sendall(f"X-{i}: y\r\n"[:3].encode())
        time.sleep(0.05)


def endless_body(sock: socket.socket, _: str) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        sock.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_headers(sock: socket.socket, _: str) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X-More: " + b"y" * 1000 + b"\r\n")


def redirect(where: str) -> Behaviour:
    """Sends whoever asks there; ``{port}`` is the server's own."""

    def behave(sock: socket.socket, port: str) -> None:
        sock.sendall(answer(b"", "302 Found", Location=where.format(port=port)))

    return behave


def says(*given: Any, **headers: str) -> Behaviour:
    """Answers with a body (and status)."""
    return lambda sock, _: sock.sendall(answer(*given, **headers))


BEHAVIOURS: dict[str, Behaviour] = {
    "/ok": says(b"fine"),
    "/slow-body": slow_body,
    "/slow-headers": slow_headers,
    "/endless-body": endless_body,
    "/endless-headers": endless_headers,
    "/huge": says(b"x", Content_Length="99999999999"),
    "/cut-short": says(b"x", Content_Length="1000"),
    "/gzip": says(b"\x1f\x8b", Content_Encoding="gzip"),
    "/garbage": lambda sock, _: sock.sendall(b"\x00\xff" * 1000),
    "/silence": lambda sock, _: time.sleep(5),
    "/hang-up": lambda sock, _: None,
    "/to-private": redirect("http://10.0.0.1/secret"),
    "/to-metadata": redirect("http://169.254.169.254/latest/meta-data"),
    "/to-loopback": redirect("http://127.0.0.1/"),
    "/to-file": redirect("file:///etc/passwd"),
    "/to-port": redirect("http://good.example:22/"),
    "/to-nonsense": redirect("http://[x"),
    "/to-length": redirect("/" + "x" * 9000),
    "/to-forbidden": redirect("/private/y.png"),
    "/to-itself": redirect("/to-itself"),
    "/to-ok": redirect("/ok"),
    "/noai": says(b"x" * 10_000, X_Robots_Tag="noai"),
    "/tdm": says(b"x" * 10_000, tdm_reservation="1"),
    "/robots.txt": says(b"User-agent: *\nDisallow: /private\nCrawl-delay: 2\n"),
    "/.well-known/tdmrep.json": says(b'[{"location": "/reserved/*", "tdm-reservation": 1}]'),
}


@contextmanager
def serving(behaviours: dict[str, Behaviour] | None = None) -> Iterator[tuple[int, list[str]]]:
    """(port, paths asked for so far) of a server on loopback."""
    known, asked = {**BEHAVIOURS, **(behaviours or {})}, list[str]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def handle(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                sock.settimeout(20)
                path = sock.recv(65536).split(b" ")[1].decode()
                asked.append(path)
                behave = known.get(path, says(b"no", "404 Not Found"))
                behave(sock, str(port))

        def accept() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield port, asked
