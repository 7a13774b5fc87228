"""What a billion pairs would take, by arithmetic from the rates that RESULTS.md holds: core-hours, bytes, memory.

``--write docs/explanation/a-billion-pairs.md`` puts the tables between that page's two marks.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import number, table
from benchmarks.record import RESULTS
from benchmarks.recorded import NotMeasured, last_row, median, newest, rows_of, value

MARKS = ("<!-- numbers: python -m benchmarks.billion_pairs --write -->", "<!-- end of numbers -->")
DATACOMP_SMALL = {"pairs": 12.8e6, "tars": 450e9, "metadata": 3e9}
"""DataComp's small pool as its authors publish it: long side at most 512 pixels (Gadre et al., 2023)."""
VECTOR = 512
"""Numbers of a CLIP ViT-B/32's vector, in float16 on disk."""
MINIATURE = 768
"""Bytes that near_duplicates writes beside each hash."""
SHARE = 0.5
"""Of a machine's memory that what is gathered may take."""


def stages(args: argparse.Namespace) -> list[tuple[str, str, float, float]]:
    """(stage, what it is measured by, seconds of CPU per 1,000, how many it is done for)."""

    def curated(name: str) -> float:
        return value(last_row("curation_memory", name, args.results)["CPU s per 1,000 records"])

    def filtered(what: str) -> float:
        return 1000 / median("filter_rates", what, "diptych", args.results)

    def collected(what: str) -> float:
        return median("collect_rates", what, "diptych, 256", args.results)

    pairs, links = args.pairs, args.pairs / args.success
    kept = pairs * args.words_keep
    return [
        ("fetch, check, shrink", "collect_rates", collected("long side at 256: CPU s per 1,000"), links),
        ("pack", "collect_rates", collected("pack what was fetched: CPU s per 1,000"), pairs),
        ("words, sizes", "curation_memory, words", curated("words"), pairs),
        ("exact duplicates", "curation_memory, exact", curated("exact"), kept),
        ("pictures: blur, dark, blank", "filter_rates", filtered("blurry, dark, light, low information"), kept),
        ("near duplicates: hash", "filter_rates", filtered("near duplicates (hashes of 64 bits)"), kept),
        ("near duplicates: settle, by bucket", "curation_memory, settle", curated("settle"), kept),
        ("balance", "curation_memory, balance", curated("balance"), kept),
    ]


def time_table(args: argparse.Namespace) -> str:
    """Core-hours of each stage."""
    rows, total = [], 0.0
    for stage, by, cost, count in stages(args):
        hours = cost * count / 1000 / 3600
        total += hours
        rows.append(
            (stage, by, number(1000 / cost), f"{count / 1e6:,.0f} M", f"{hours:,.0f}", number(hours / args.cores))
        )
    rows.append(("together", "", "", "", f"{total:,.0f}", number(total / args.cores)))
    return table(
        ("stage", "measured by", "a second and core", "of", "core-hours", f"hours on {args.cores:,} cores"), rows
    )


def gathered_table(args: argparse.Namespace) -> str:
    """What is held of every record while filters run, and into how many parts or buckets the pool must be cut."""
    kept, memory = args.pairs * args.words_keep, SHARE * args.memory_gb * 1e9
    rows = []
    for what, name in (
        ("whatever is curated: uids that stay, all processes", "words"),
        ("... and exact hashes", "exact"),
        ("... and words counted", "balance"),
        ("near-duplicate hashes, alone", "settle"),
    ):
        each = _held(name, args)
        held = each * kept
        fits = f"{memory / each / 1e6:,.0f} M" if each else "any number"
        rows.append((what, f"{each:,.0f}", f"{held / 1e9:,.0f} GB", fits, f"{max(1, math.ceil(held / memory)):,}"))
    each = 4.0 * VECTOR
    rows.append(
        (
            "vectors of a SemDeDup cluster (float32)",
            f"{each:,.0f}",
            f"{each * kept / 1e9:,.0f} GB",
            f"{memory / each / 1e6:,.0f} M",
            f"{math.ceil(kept / args.cluster):,} clusters of {args.cluster:,}",
        )
    )
    header = ("gathered", "bytes a record", "of all", f"fits {SHARE * args.memory_gb:,.0f} GB until", "parts")
    return table(header, rows)


def _held(name: str, args: argparse.Namespace) -> float:
    """Bytes of memory a record: the growth between the two largest pools. Of settling alone, which is one process at
    every size, that from the smallest one on: its peak is the making of hashes until the records are many."""
    rows = rows_of("curation_memory", name, args.results)
    first, last = rows[0 if name == "settle" else -2], rows[-1]
    peaks, records = ([value(r[what]) for r in (first, last)] for what in ("peak MB", "records"))
    return max((peaks[1] - peaks[0]) * 1e6 / (records[1] - records[0]), 0.0)


def bytes_table(args: argparse.Namespace) -> str:
    """What lies on disk, and what goes over the wire."""
    each = {
        "links and words (parquet)": DATACOMP_SMALL["metadata"] / DATACOMP_SMALL["pairs"],
        "shards, long side 512": DATACOMP_SMALL["tars"] / DATACOMP_SMALL["pairs"],
        "scores, one name (uid, float32)": 16 + 4.0,
        f"vectors ({VECTOR}, float16, and uids)": 2.0 * VECTOR + 16,
        "miniatures while near duplicates are settled": float(MINIATURE),
        "selection.npy": 16.0,
    }
    rows = [(what, number(b), f"{b * args.pairs / 1e12:,.2f} TB") for what, b in each.items()]
    return table(("what", "bytes a pair", f"of {args.pairs / 1e9:g} billion"), rows)


def report(args: argparse.Namespace) -> str:
    """All tables, and what they assume."""
    dates = sorted({newest(b, args.results)[0] for b in ("collect_rates", "filter_rates", "curation_memory")})
    links, shards = args.pairs / args.success, math.ceil(args.pairs / args.per_shard)
    return "\n\n".join(
        [
            f"{args.pairs / 1e9:g} billion pairs from {links / 1e9:.3g} billion links, {args.success:.0%} of which "
            "still bring a picture (a link that fails is counted like one that does not); the filters of words leave "
            f"{args.words_keep:.0%}; {shards:,} shards of {args.per_shard:,}. Rates measured {', '.join(dates)}; all "
            "else is arithmetic.",
            time_table(args),
            gathered_table(args),
            bytes_table(args),
        ]
    )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--pairs", type=float, default=1e9)
    options.add_argument("--success", type=float, default=0.5, help="links that bring a picture (people saw 0.13-0.86)")
    options.add_argument("--words-keep", type=float, default=0.6, help="share that the filters of words leave")
    options.add_argument("--per-shard", type=int, default=10_000)
    options.add_argument("--cluster", type=int, default=2000, help="records of a cluster of SemDeDup")
    options.add_argument("--cores", type=int, default=1024)
    options.add_argument("--memory-gb", type=float, default=256, help="of the machine that settles")
    options.add_argument("--results", type=Path, default=RESULTS, help="where the rates are")
    options.add_argument("--write", type=Path, nargs="?", const=Path("docs/explanation/a-billion-pairs.md"))
    return options.parse_args(given)


def main() -> None:
    """The command."""
    args = arguments()
    try:
        said = report(args)
    except NotMeasured as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(said)
    if args.write:
        begin, end = MARKS
        page = args.write.read_text(encoding="utf-8")
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
        args.write.write_text(pattern.sub(lambda _: f"{begin}\n\n{said}\n\n{end}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
