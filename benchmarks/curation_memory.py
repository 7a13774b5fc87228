"""Peak memory of `diptych curate`, all its processes together, over pools of 10 k to 1 M made records."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import number, table
from benchmarks.options import names, numbers, parser, run
from benchmarks.process_tree import Usage, run_tree
from benchmarks.record import Result, versions_in
from benchmarks.turns import environment

CURATIONS = ("words", "house", "exact", "balance", "near", "settle")
"""words: house:default but for what decodes pictures; exact, balance, near: the filters of these names, which gather;
settle: what near_duplicates does once everything is gathered, alone, on made hashes."""

DECODING = ("house", "near")
"""Those that decode every picture: not at sizes beyond --most-decoded, where much decoding would show nothing new."""

BOUND = 200
"""Bytes a record, in all processes together, that memory may grow by between the two largest pools."""


def measure(args: argparse.Namespace) -> Result:
    """Each curation at each size."""
    from benchmarks.curation_pool import write_pool

    result = Result("curation_memory", versions=versions_in({"diptych": sys.executable}))
    sizes = [60, 240] if args.tiny else numbers(args.records)
    found: dict[str, dict[int, Usage]] = {c: {} for c in names(args.curations)}
    work = Path(tempfile.mkdtemp(prefix="bench-curation-", dir=args.work))
    try:
        for records in sizes:
            pool = write_pool(records, 30 if args.tiny else args.per_shard)
            for curation in found:
                if curation in DECODING and records > args.most_decoded:
                    continue
                found[curation][records] = _one(curation, records, pool, work, args)
                said = found[curation][records]
                print(f"  {curation}, {records:,}: {said.peak / 1e6:,.0f} MB", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(work)
    rows = [row for curation, taken in found.items() for row in _rows(curation, taken)]
    header = ("curation", "records", "peak MB", "bytes a record more", "seconds", "CPU s per 1,000 records")
    result.body = table(header, rows)
    result.notes += [
        "Made pools: noise of 16 x 16 pixels, two real captions a record, every 50th picture twice; "
        f"{args.per_shard:,} records a shard, {args.jobs} jobs. Peak: anonymous memory of all processes together, "
        "shared pages once; what is mapped from files, which can be dropped at any time, is not in it.",
        "'bytes a record more': the growth from the size before it; what one process of interpreter, torch and pyarrow "
        "takes is in the first row.",
        *_kept(found),
    ]
    return result


def _one(curation: str, records: int, pool: Path, work: Path, args: argparse.Namespace) -> Usage:
    if curation == "settle":
        line = [sys.executable, "-m", "benchmarks.settle_process", "--records", str(records)]
        took = run_tree(line, environment(1), memory=True)
        return took._replace(cpu=json.loads(took.output.splitlines()[-1])["cpu_s"])  # without the making of hashes
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    recipe = work / f"{curation}.toml"
    recipe.write_text(toml(curation))
    line = [str(Path(sys.executable).with_name("diptych")), "curate", str(pool), str(recipe)]
    return run_tree([*line, "--out", str(out), "--jobs", str(args.jobs)], environment(1), memory=True)


def toml(curation: str) -> str:
    """A curation as the file that the command is given."""
    from diptych.core.config import to_dict
    from diptych.data.curations.house import default

    alone = {"exact": "exact_duplicates", "balance": "balance", "near": "near_duplicates"}
    if curation in alone:
        return f'[[filter]]\nname = "{alone[curation]}"\n'
    lines = list[str]()
    for config in default().filters:
        if curation == "house" or config.name != "sharpness":
            lines += ["[[filter]]", f'name = "{config.name}"']
            given = {k: v for k, v in to_dict(config).items() if k != "kind"}
            lines += [f"{k} = {_value(v)}" for k, v in given.items() if isinstance(v, str | bool | int | float)]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _rows(curation: str, taken: dict[int, Usage]) -> list[tuple[str, ...]]:
    rows, before = [], 0
    for records, usage in taken.items():
        grown = f"{growth(taken, before, records):,.0f}" if before else ""
        cost = number(usage.cpu / records * 1000)
        rows.append((curation, f"{records:,}", f"{usage.peak / 1e6:,.0f}", grown, number(usage.wall), cost))
        before = records
    return rows


def growth(taken: dict[int, Usage], few: int, many: int) -> float:
    """Bytes of memory a record between two sizes."""
    return (taken[many].peak - taken[few].peak) / (many - few)


def _kept(found: dict[str, dict[int, Usage]]) -> list[str]:
    said = []
    for curation, taken in found.items():
        if len(taken) > 1:
            few, many = list(taken)[-2:]
            more = growth(taken, few, many)
            verdict = "kept" if more <= BOUND else "NOT KEPT"
            said.append(f"{curation}: {more:,.0f} bytes a record from {few:,} to {many:,}; bound {BOUND}: {verdict}.")
    return said


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=1)
    options.add_argument("--records", default="10000,100000,1000000", help="sizes of the pools")
    options.add_argument("--curations", default=",".join(CURATIONS))
    options.add_argument("--most-decoded", type=int, default=100_000, help="records of which pictures are decoded")
    options.add_argument("--per-shard", type=int, default=10_000)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--work", type=Path, help="where selections are put meanwhile (default: the system's)")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
