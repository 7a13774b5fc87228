"""Records a second of filters on real pictures and captions, beside cleanvision and data-juicer; who drops what."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data_peers import peer_versions, side
from benchmarks.figures import Comparison, Series, table
from benchmarks.options import names, parser, run
from benchmarks.record import Result, versions_in
from benchmarks.turns import Worker

BLUR = {"dark": {"threshold": 0.32}, "light": {"threshold": 0.05}, "low_information": {"threshold": 0.3}}
"""cleanvision's own defaults, and ours."""


@dataclass(frozen=True)
class Case:
    """One filter as both have it: our name and settings; the peer's issues (cleanvision), or its operator's module,
    class and settings (data-juicer); and why the two may part."""

    what: str
    name: str
    settings: dict[str, Any]
    why: str
    issues: dict[str, Any] = field(default_factory=dict)
    operator: tuple[str, str, dict[str, Any]] | None = None


CASES = {
    "near": Case(
        "near duplicates (hashes of 64 bits)",
        "near_duplicates",
        {},
        "cleanvision takes equal pHashes for duplicates and nothing else; ours takes up to 6 bits of its own, then "
        "compares 16 x 16 pixels, so that re-encoded copies go and different icons with one hash stay; cleanvision "
        "sees what lies beneath transparent pixels, so that black drawings on nothing are one black square to it",
        issues={"exact_duplicates": {}, "near_duplicates": {"hash_type": "phash", "hash_size": 8}},
    ),
    "sharpness": Case(
        "blurry, dark, light, low information",
        "sharpness",
        {"at_least": 0},
        "the measures are cleanvision's, of other pixels: it takes stored values as they are (numbers of a palette, "
        "colours beneath transparent pixels, alpha in the entropy), ours the picture on white",
        issues={**BLUR, "blurry": {"threshold": 0.29}},
    ),
    "aspect": Case(
        "aspect ratio",
        "image_size",
        {"max_aspect": 1 / 0.35, "of": "packed"},
        "ours reads the sizes that packing wrote down, cleanvision opens each file",
        issues={"odd_aspect_ratio": {"threshold": 0.35}},
    ),
    "length": Case(
        "text length",
        "caption_length",
        {"min_characters": 12},
        "the rule is the same",
        operator=("text_length_filter", "TextLengthFilter", {"min_len": 12, "max_len": 10**9}),
    ),
    "special": Case(
        "special characters",
        "special_characters",
        {"max_share": 0.25},
        "ours counts all that is neither letter nor mark, data-juicer what is in its list of signs, digits and blanks",
        operator=("special_characters_filter", "SpecialCharactersFilter", {"max_ratio": 0.25}),
    ),
    "words": Case(
        "repeated words (n = 5)",
        "repetition",
        {"word_n": 5, "max_words": 0.1, "max_characters": 1.0},
        "data-juicer strips signs from words before it counts",
        operator=("word_repetition_filter", "WordRepetitionFilter", {"rep_len": 5, "max_ratio": 0.1}),
    ),
    "characters": Case(
        "repeated characters (n = 10)",
        "repetition",
        {"character_n": 10, "max_words": 1.0, "max_characters": 0.1},
        "the measure is the same",
        operator=("character_repetition_filter", "CharacterRepetitionFilter", {"rep_len": 10, "max_ratio": 0.1}),
    ),
}


def measure(args: argparse.Namespace) -> Result:
    """Each case, the sides in turn."""
    from benchmarks.filter_pool import exported
    from diptych.data.candidates import CandidatePool
    from diptych.data.corpora.corpus import get

    path = args.pool or get(args.corpus)
    pool = CandidatePool(path)
    folder = exported(pool)
    result = Result("filter_rates", versions=versions_in({"diptych": sys.executable}) | peer_versions())
    rows = []
    with side("ours", "diptych") as mine, side("peer", "peers") as theirs:
        mine.ask("open", path=str(path))
        theirs.ask("open", folder=str(folder))
        for key in names(args.cases):
            case = CASES[key]
            found = _turns(case, mine, theirs, args)
            series = {
                s: Series(s, tuple(len(pool) / t["cpu"] for t in turns), "records/s/core") for s, turns in found.items()
            }
            ours, other, *alone = series.values()
            result.comparisons.append(Comparison(case.what, (ours,), (other,)))
            if alone:
                result.comparisons.append(Comparison(f"{case.what}, nothing but the rule", (alone[0],), (alone[1],)))
            rows.append(_agreement(case, [set(t[-1]["dropped"]) for t in found.values()][:2]))
    result.body = "What each drops:\n\n" + table(("filter", "both", "only ours", "only theirs", "why they part"), rows)
    result.notes += [
        f"{len(pool):,} records of {Path(path).name.split('-')[0]}, one process and one thread a side; rates are by "
        "seconds of CPU, of all processes of a side.",
        "Ours reads the columns of the pool in the clock, and pictures from its shards; data-juicer's texts lie in "
        "memory before its clock starts, which favours it, and cleanvision's pictures in the page cache, as ours do. "
        "Grey pictures with alpha are given to cleanvision as RGBA: it ends with an IndexError on them.",
        f"Texts are taken {1 if args.tiny else args.repeats} times in a row. 'nothing but the rule': the texts lie in "
        "memory on both sides, and only the functions that judge them are timed.",
    ]
    return result


def _turns(case: Case, mine: Worker, theirs: Worker, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Answers of each side, turn by turn."""
    repeats = 1 if case.issues or args.tiny else args.repeats
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(args.rounds):
        answers = {"diptych": mine.ask("run", name=case.name, settings=case.settings, repeats=repeats)}
        if case.operator is None:
            answers["cleanvision"] = theirs.ask("cleanvision", issues=case.issues)
        else:
            module, name, settings = case.operator
            given = {"module": module, "name": name, "settings": settings, "repeats": repeats}
            answers["data-juicer"] = theirs.ask("juicer", **given, alone=False)
            own = {"name": case.name, "settings": case.settings, "repeats": repeats}
            answers["diptych, alone"] = mine.ask("run", **own, alone=True)
            answers["data-juicer, alone"] = theirs.ask("juicer", **given, alone=True)
        for name, answer in answers.items():
            found.setdefault(name, []).append(answer)
        print(f"  {case.what}: round {number + 1}/{args.rounds}", file=sys.stderr, flush=True)
    return found


def _agreement(case: Case, dropped: list[set[int]]) -> tuple[str, ...]:
    ours, theirs = dropped
    counts = (len(ours & theirs), len(ours - theirs), len(theirs - ours))
    return (case.what, *(f"{c:,}" for c in counts), case.why)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line or as given."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--corpus", default="openclipart", help="whose train split is filtered")
    options.add_argument("--pool", type=Path, help="a packed dataset instead of a corpus")
    options.add_argument("--cases", default=",".join(CASES))
    options.add_argument("--repeats", type=int, default=10, help="how often texts are taken in a row")
    return options.parse_args(given)


def main() -> None:
    """The command."""
    run(measure, arguments())


if __name__ == "__main__":
    main()
