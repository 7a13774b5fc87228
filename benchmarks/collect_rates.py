"""Links to shards: `diptych collect urls` beside img2dataset, both as commands, from a server on loopback."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cpu_time import used
from benchmarks.data_peers import data_python, peer_versions
from benchmarks.figures import Comparison, Series, number
from benchmarks.options import parser, run
from benchmarks.process_tree import run_tree
from benchmarks.record import Result, versions_in
from benchmarks.turns import ROOT, SideError, environment

FEW = 16
"""Links of the run that shows what a start costs; it is taken off the long one."""
AS_IT_CAME, SHRUNK = "bytes as they came", "long side at 256"

SIDES: dict[str, tuple[str, str]] = {
    "diptych": ("diptych", AS_IT_CAME),
    "img2dataset": ("img2dataset", AS_IT_CAME),
    "img2dataset, not decoding": ("img2dataset", AS_IT_CAME),
    "diptych, 256": ("diptych", SHRUNK),
    "img2dataset, 256": ("img2dataset", SHRUNK),
}
"""What is run, in this order in every round: whose command, and what becomes of the pictures."""


def measure(args: argparse.Namespace) -> Result:
    """Every side in every round, each with few links and with many."""
    from benchmarks.make_material import photos

    if args.tiny:
        args.links, args.pictures, args.width, args.height = 64, 8, 160, 120
    folder = photos(args.pictures, args.width, args.height)
    result = Result("collect_rates", versions=versions_in({"diptych": sys.executable}) | peer_versions())
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    work = Path(tempfile.mkdtemp(prefix="bench-collect-", dir=args.work))
    try:
        with server(folder) as (port, pid):
            tables = {n: _links(work / f"{n}.parquet", n, port) for n in (FEW, args.links)}
            for turn in range(args.rounds):
                for side in SIDES:
                    found[side].append(_turn(side, tables, port, pid, work, args))
                    print(f"  round {turn + 1}/{args.rounds}  {side}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(work)
    for what in (AS_IT_CAME, SHRUNK):
        for figure, unit, lower in (("cpu_per_1000", "CPU s per 1,000", True), ("rate", "images/s", False)):
            series = {
                side: Series(side, tuple(t[figure] for t in found[side]), unit, lower)
                for side, (_, kind) in SIDES.items()
                if kind == what
            }
            mine, theirs, *careless = series.values()
            result.comparisons.append(Comparison(f"{what}: {unit}", (mine,), (theirs,)))
            result.comparisons += [
                Comparison(f"{what}, the peer not decoding: {unit}", (mine,), (c,)) for c in careless
            ]
    packed = tuple(t["pack_per_1000"] for t in found["diptych, 256"])
    packing = Series("diptych, 256", packed, "CPU s per 1,000", lower=True)
    result.comparisons.append(Comparison("pack what was fetched: CPU s per 1,000", (packing,)))
    result.notes += _notes(found, folder, args)
    return result


def _turn(
    side: str, tables: dict[int, Path], port: int, server_pid: int, work: Path, args: argparse.Namespace
) -> dict[str, float]:
    """CPU and rate of one run, without what a start costs; and what the server took."""
    took, packing, out = {}, {}, work / "out"
    for links, table in tables.items():
        shutil.rmtree(out, ignore_errors=True)
        before = used(server_pid)
        took[links] = run_tree(command(side, table, out, port, args), environment() | _QUIET)
        served = used(server_pid) - before
        kept = kept_of(out)
        if kept != links:
            raise SideError(f"{side} must keep all {links} pictures; it kept {kept}: {took[links].output[-500:]}")
        packing[links] = _pack(out / "00000.tar", work / "packed") if side == "diptych, 256" else 0.0
    few, many = took[FEW], took[max(tables)]
    links = max(tables) - FEW
    return {
        "pack_per_1000": (packing[max(tables)] - packing[FEW]) / links * 1000,
        "cpu_per_1000": (many.cpu - few.cpu) / links * 1000,
        "rate": links / (many.wall - few.wall),
        "start_cpu": few.cpu,
        "start_wall": few.wall,
        "server_per_1000": served / max(tables) * 1000,
    }


def _pack(tar: Path, out: Path) -> float:
    """Seconds of CPU of `diptych pack` on a shard that was fetched, in one process."""
    shutil.rmtree(out, ignore_errors=True)
    line = [str(Path(sys.executable).with_name("diptych")), "pack", str(tar), "tokenizer=none", "jobs=1"]
    return run_tree([*line, "--out", str(out)], environment()).cpu


_QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "COLUMNS": "200"}
"""Neither package may ask the network for its newest version."""


def command(side: str, table: Path, out: Path, port: int, args: argparse.Namespace) -> list[str]:
    """The command line of a side: one process with the same number of threads, its own checks on."""
    whose, what = SIDES[side]
    if whose == "diptych":
        shrink = ["resize=256", "jpeg_quality=95"] if what == SHRUNK else []
        own = f'web.private_hosts=["127.0.0.1:{port}"]'
        line = [str(Path(sys.executable).with_name("diptych")), "collect", "urls", str(table), "--out", str(out)]
        return [*line, "--jobs", "1", own, "host_interval=0", f"threads={args.download_threads}", *shrink]
    line = [str(Path(data_python()).with_name("img2dataset")), "--url_list", str(table), "--output_folder", str(out)]
    line += ["--input_format", "parquet", "--caption_col", "caption", "--output_format", "webdataset"]
    line += ["--processes_count", "1", "--thread_count", str(args.download_threads), "--extract_exif", "False"]
    line += ["--enable_wandb", "False"]
    if what == SHRUNK:
        line += ["--image_size", "256", "--resize_mode", "keep_ratio_largest", "--resize_only_if_bigger", "True"]
        return [*line, "--encode_quality", "95"]
    if "not decoding" in side:
        return [*line, "--disable_all_reencoding", "True"]
    return [*line, "--resize_mode", "no", "--skip_reencode", "True"]


def kept_of(out: Path) -> int:
    """How many pictures a finished run has kept, by its own account."""
    kept = 0
    for path in out.glob("*.json"):
        said: dict[str, Any] = json.loads(path.read_text())
        kept += int(said.get("kept", said.get("successes", 0)))
    return kept


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """The port and the process of a server of the JPEGs in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.collect_server", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _links(path: Path, count: int, port: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.material import captions

    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": captions(count)}), path)
    return path


def _notes(found: dict[str, list[dict[str, float]]], folder: Path, args: argparse.Namespace) -> list[str]:
    sizes = [p.stat().st_size for p in folder.glob("*.jpg")]

    def middle(side: str, figure: str) -> str:
        return number(sorted(t[figure] for t in found[side])[len(found[side]) // 2])

    starts = ", ".join(f"{s} {middle(s, 'start_cpu')}" for s in ("diptych", "img2dataset"))
    served = ", ".join(f"{s} {middle(s, 'server_per_1000')}" for s in found)
    return [
        f"{args.links:,} links to {len(sizes)} made photographs of {args.width} x {args.height} "
        f"({number(sum(sizes) / len(sizes) / 1000)} kB on average), one process, {args.download_threads} threads on "
        "each side; CPU: user and system of all processes of the command.",
        f"A start ({FEW} links; CPU s: {starts}) is taken off on both sides.",
        f"The server is a process of its own; its CPU s per 1,000: {served}. It shares the cores with the client, so "
        "that images/s are lower than from another machine; the CPU of the client is not touched by it.",
        "Ours asks robots.txt and tdmrep.json of the site, resolves and judges the address of each link, and decodes "
        "each picture once to check it; the loopback host is named as one that may be asked, and the pause between two "
        "requests to a host, 0.1 s otherwise, is off. img2dataset has no such pause; 'not decoding' writes whatever "
        "came, without size (disable_all_reencoding).",
    ]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--links", type=int, default=3000)
    options.add_argument("--pictures", type=int, default=64, help="different pictures that the server holds")
    options.add_argument("--width", type=int, default=800)
    options.add_argument("--height", type=int, default=600)
    options.add_argument("--download-threads", type=int, default=32, help="requests at once on each side")
    options.add_argument("--work", type=Path, help="where shards are written meanwhile (default: the system's)")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
