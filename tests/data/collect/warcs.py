"""Small WARC files, written by hand."""

import gzip
import json
from pathlib import Path


def record(
    kind: str, address: str, block: bytes, content_type: str = "application/http", size: int | None = None
) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(block) if size is None else size}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def answer(body: bytes, content_type: str = "text/html", status: int = 200, **headers: str) -> bytes:
    said = {"Content-Type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = "".join(f"{k}: {v}\r\n" for k, v in said.items())
    return f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + body


def page(address: str, body: str | bytes, **more: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    return record("response", address, answer(raw, **more))


def wat(address: str, links: list[dict], headers: dict | None = None, head: dict | None = None) -> bytes:
    html = {"Links": links, **({"Head": head} if head else {})}
    payload = {"HTTP-Response-Metadata": {"Headers": headers or {}, "HTML-Metadata": html}}
    envelope = {"WARC-Header-Metadata": {"WARC-Target-URI": address}, "Payload-Metadata": payload}
    return record("metadata", address, json.dumps({"Envelope": envelope}).encode(), "application/json")


def write(path: Path, *records: bytes) -> Path:
    """A file of records, each gzipped alone where the name ends in .gz."""
    path.write_bytes(b"".join(gzip.compress(r) if path.suffix == ".gz" else r for r in records))
    return path
