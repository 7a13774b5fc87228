"""What a report shows of composition: each test with its interval and chance, the blind baselines beside it, and the
pictures on which the model is plainly wrong."""

from typing import Any

from diptych.evals.scoring import thumbnail
from diptych.report.figures import Figure, Interval, Intervals, Picture, Pictures, Words

NAMES = {
    "blank": "before a blank image",
    "prior": "by log p(text)",
    "likely_words": "likely words",
    "telling_words": "telling words",
}
"""The blind baselines, for people."""


def composition_figures(judged: Any, split: Any, pictures: int) -> tuple[Figure, ...]:
    """The figures of an eval whose items were judged (`composition.Judged`)."""
    rows = judged.by_test()
    figures: list[Figure] = [_by_test(judged, rows), _against_blind(judged, rows)]
    if pictures:
        figures.append(_worst(judged, split, pictures))
    return tuple(figures)


def _by_test(judged: Any, rows: list[dict[str, Any]]) -> Intervals:
    whole = judged.macro(judged.right)
    found = [Interval(name="mean over tests", value=whole.value, low=whole.low, high=whole.high, chance=whole.chance)]
    for row in rows:
        e = row["accuracy"]
        found.append(
            Interval(name=row["test"], value=e["value"], low=e["low"], high=e["high"], chance=e["chance"], n=e["n"])
        )
    words = "How often the right caption scores highest; n counts images, or sets where records belong together."
    return Intervals(title="Accuracy by test", words=words, rows=tuple(found))


def _against_blind(judged: Any, rows: list[dict[str, Any]]) -> Words:
    names = list(judged.blind)
    head = ("test", "n", "with the image", *(NAMES[b] for b in names), "gain over the best", "against blind")
    body = []
    for row in rows:
        gain = row["against_blind"]
        body.append(
            (
                row["test"],
                str(row["accuracy"]["n"]),
                _ranged(row["accuracy"]),
                *(_ranged(row["blind"][b]) for b in names),
                f"{100 * gain['difference']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]",
                gain["verdict"],
            )
        )
    solvable = judged.solvable_blind()
    said = "; ".join(f"{test} (by {' and '.join(NAMES[b] for b in by)})" for test, by in solvable.items())
    words = (
        "What can be known without looking: percent right, with 95 % intervals. "
        f"Likely words were read in {judged.source}; telling words in the other items. "
        + (f"Solvable blind, above chance without any model: {said}." if said else "No test is solvable blind.")
    )
    return Words(
        title="Against those that do not look",
        words=words,
        head=head,
        rows=tuple(body),
        numeric=tuple(range(1, len(head) - 1)),
    )


def _worst(judged: Any, split: Any, pictures: int) -> Pictures:
    found = []
    for n, item in judged.worst()[:pictures]:
        scores = judged.scored.image[n]
        taken = 1 + int(scores[1:].argmax())
        found.append(
            Picture(
                image=thumbnail(split, item.place),
                caption=f"{item.test}: {item.texts[0]} ({scores[0]:.3f})",
                detail=f"it prefers: {item.texts[taken]} ({scores[taken]:.3f})",
                verdict="wrong",
            )
        )
    words = "The mistakes by the widest margin, of every test in turn: the right caption, and the wrong one that won."
    return Pictures(title="Hardest items", words=words, pictures=tuple(found))


def _ranged(estimate: dict[str, Any]) -> str:
    return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"
