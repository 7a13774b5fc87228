"""Links to shards: each piece of a table is fetched, checked and written whole, or done again.

    OUT/00000.tar, 00000.index.npz   what was fetched and kept: image, caption, meta with its origin
    OUT/00000.parquet                every link of the piece: url, status, reason, message, sha256, width, height, and
                                     before it was shrunk original_width, original_height
    OUT/00000.json                   counts; once it is there, the piece is done

As img2dataset writes them, so other tools read them; `diptych pack OUT/00000.tar` packs them. Before anything is
fetched, also where a redirect leads, the site's robots.txt and tdmrep.json are asked, and the answer's headers are read
before its body; who asks not to be used is left alone, and that is noted. A hash that the table brings (column sha256)
must be that of what comes.
"""

import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from diptych.core.config import to_dict
from diptych.core.errors import ConfigError
from diptych.core.files import sweep, write_json
from diptych.core.progress import track
from diptych.core.record import Record
from diptych.data.executors.executor import Executor
from diptych.data.face_detector import check_detector
from diptych.data.judge import Kept, Limits, judge
from diptych.data.shard_index import index_path
from diptych.data.shards import ShardWriter
from diptych.data.sources.source import Reject
from diptych.data.web.addresses import Resolve, system_addresses
from diptych.data.web.host_clock import HostClock
from diptych.data.web.links import cut_links
from diptych.data.web.opt_out import check_headers
from diptych.data.web.refused import Refused
from diptych.data.web.safe_http import WebLimits, get, split_url
from diptych.data.web.sites import Sites

AHEAD = 4
"""Links a thread that are asked before their turn: so many bodies are held at most."""
ATTEMPTS = pa.schema(
    [
        *(("url", pa.string()), ("caption", pa.string()), ("key", pa.string()), ("status", pa.string())),
        *(("reason", pa.string()), ("message", pa.string()), ("sha256", pa.string())),
        *(("width", pa.int32()), ("height", pa.int32())),
        *(("original_width", pa.int32()), ("original_height", pa.int32())),
    ]
)


class DownloadConfig(Limits):
    """How links are fetched and what of them is kept; the fields of packing's limits are among these.

    web             limits of a request
    piece           links of a shard
    threads         requests at once in a process
    host_interval   seconds between two requests to a host, over all processes; a site's crawl-delay where it is longer
    robots          "heed": robots.txt, tdmrep.json and opt-out headers; "ignore": nothing of these, for one's own sites
    url_column, caption_column  empty: found by their names
    """

    web: WebLimits = WebLimits()
    piece: int = Field(default=10_000, ge=1)
    threads: int = Field(default=64, ge=1)
    host_interval: float = Field(default=0.1, ge=0)
    robots: str = Field(default="heed", pattern="^(heed|ignore)$")
    url_column: str = ""
    caption_column: str = ""


@dataclass
class DownloadReport:
    """What a download did: kept + left = links. `str()` of it is for people."""

    out: Path
    links: int = 0
    kept: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = f"Fetched {self.kept:,} of {self.links:,} links into {self.out} ({self.bytes / 1e6:,.1f} MB)."
        why = ", ".join(f"{n:,} {reason}" for reason, n in self.reasons.most_common())
        return f"{said}\nLeft: {why}. Each is named in the .parquet of its shard." if why else said


class _Fetch(NamedTuple):
    """What a worker needs besides the piece."""

    out: Path
    config: DownloadConfig
    resolve: Resolve


def download(
    table: Path,
    out: Path,
    executor: Executor,
    config: DownloadConfig | None = None,
    resolve: Resolve = system_addresses,
) -> DownloadReport:
    """Fetch the links of a table into shards in `out`; goes on where it was stopped."""
    config = config or DownloadConfig()
    if config.faces.blur == "detect":
        check_detector(config.faces.model)
    _claim(out, config)
    pieces = cut_links(table, out, config.piece, config.url_column, config.caption_column)
    todo = [p for p in pieces if not (out / f"{p.stem}.json").is_file()]
    work = partial(_piece, _Fetch(out, config, resolve))
    for _ in track(executor.map(work, todo), "download", len(todo)):
        pass
    report = DownloadReport(out)
    for piece in pieces:
        found = json.loads((out / f"{piece.stem}.json").read_text())
        report.links, report.kept = report.links + found["links"], report.kept + found["kept"]
        report.bytes += found["bytes"]
        report.reasons.update(found["reasons"])
    shutil.rmtree(out / "hosts", ignore_errors=True)
    return report


def _claim(out: Path, config: DownloadConfig) -> None:
    path, mine = out / "download.json", to_dict(config.replace(threads=1))
    if path.is_file() and json.loads(path.read_text()) != json.loads(json.dumps(mine, default=sorted)):
        raise ConfigError(f"{out} holds a download with other settings; give those, or name another --out.")
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    write_json(path, json.loads(json.dumps(mine, default=sorted)))


def _piece(fetch: _Fetch, piece: Path) -> None:
    """Fetch one piece, and write its files, the one that says that it is done last."""
    rows = pq.read_table(piece).to_pylist()
    name, out = piece.stem, fetch.out
    beside = out / f".{name}.writing"
    shutil.rmtree(beside, ignore_errors=True)
    attempts, counts, size = [], Counter[str](), 0
    with ShardWriter(beside, len(rows) + 1, 1 << 62) as writer:
        for row, (verdict, sha) in zip(rows, _verdicts(fetch, name, rows), strict=True):
            attempts.append(_attempt(row, verdict, sha))
            if isinstance(verdict, Kept):
                writer.add(verdict.record, verdict.sizes, verdict.uid)
                size += sum(len(s.data) for s in verdict.record.segments if s.modality == "image")
            else:
                counts[verdict.reason] += 1
    target = out / f"{name}.tar"
    for left in (target, index_path(target)):  # of a process that was killed, for which the links may have held more
        left.unlink(missing_ok=True)
    for shard in writer.shards:
        index_path(beside / shard).replace(index_path(target))
        (beside / shard).replace(target)
    pq.write_table(pa.Table.from_pylist(attempts, schema=ATTEMPTS), beside / "attempts", compression="zstd")
    (beside / "attempts").replace(out / f"{name}.parquet")
    shutil.rmtree(beside)
    kept = len(rows) - sum(counts.values())
    write_json(out / f"{name}.json", {"links": len(rows), "kept": kept, "bytes": size, "reasons": dict(counts)})


def _verdicts(fetch: _Fetch, name: str, rows: list[dict[str, Any]]) -> Iterator[tuple[Kept | Reject, str]]:
    """What became of each link, in order, many being asked at once, not far ahead of whoever takes them."""
    asks, waiting = _Asks(fetch), deque[Future[tuple[Kept | Reject, str]]]()
    with ThreadPoolExecutor(fetch.config.threads) as pool:
        for number, row in enumerate(rows):
            waiting.append(pool.submit(asks.verdict, f"{name}{number:06d}", row))
            if len(waiting) > AHEAD * fetch.config.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Asks:
    """Fetches and judges single links; shared by a process's threads."""

    def __init__(self, fetch: _Fetch) -> None:
        self.config, self.resolve = fetch.config, fetch.resolve
        self.sites = Sites(self.config.web, resolve=self.resolve)
        self.clock = HostClock(fetch.out / "hosts", self.config.host_interval)

    def verdict(self, key: str, row: dict[str, Any]) -> tuple[Kept | Reject, str]:
        """(the record or why there is none, the SHA-256 of what came)."""
        url, sha = row["url"], ""
        try:
            body = self._body(url)
            sha = hashlib.sha256(body).hexdigest()
            meta = json.loads(row["meta"])
            wanted = str(meta.get("sha256") or "")
            if wanted and wanted.lower() != sha:
                raise Refused("changed", f"what {url} brings must have the SHA-256 {wanted}; got {sha}.")
        except Refused as error:
            return Reject(key, error.message, error.reason, url), sha
        said = {"collector": "urls", "origin": url} | ({"licence": meta["license"]} if meta.get("license") else {})
        meta = {**meta, "url": url, "sha256": sha, "collected": said}
        record = Record.pair(key, body, "", (row["caption"],), meta=meta)
        return judge(record, self.config), sha

    def _body(self, url: str) -> bytes:
        judge = check_headers if self.config.robots == "heed" else None
        answer = get(url, self.config.web, judge, self.resolve, "image/*,*/*;q=0.1", self._ask)
        if answer.status != 200:
            raise Refused(f"status_{answer.status}", f"{url} must answer 200; got {answer.status}.")
        return answer.body

    def _ask(self, url: str) -> None:
        """Whether a link may be asked, and then its turn; of redirects too, which lead to other sites."""
        _, host, _, _ = split_url(url)
        heeds = self.config.robots == "heed"
        if heeds:
            self.sites.check(url)
        self.clock.wait(host, self.sites.delay(url) if heeds else 0.0)


def _attempt(row: dict[str, Any], verdict: Kept | Reject, sha: str) -> dict[str, Any]:
    kept = isinstance(verdict, Kept)
    wide, high = verdict.sizes[0] if isinstance(verdict, Kept) else (0, 0)
    came_wide, came_high = _as_it_came(verdict) if isinstance(verdict, Kept) else (0, 0)
    return {
        "url": row["url"],
        "caption": row["caption"],
        "key": verdict.record.key if isinstance(verdict, Kept) else verdict.key,
        "status": "success" if kept else "left",
        "reason": "" if isinstance(verdict, Kept) else verdict.reason,
        "message": "" if isinstance(verdict, Kept) else verdict.message,
        "sha256": sha,
        "width": wide,
        "height": high,
        "original_width": came_wide,
        "original_height": came_high,
    }


def _as_it_came(kept: Kept) -> tuple[int | None, int | None]:
    """(width, height) before it was shrunk; of what was, the table of links may have brought its own, which are None
    where they are no sides of a picture."""
    if "resized" not in kept.notes:
        return kept.sizes[0]
    said = (kept.record.meta.get(name) for name in ("original_width", "original_height"))
    wide, high = (v if type(v) is int and 0 < v < 2**31 else None for v in said)
    return wide, high
