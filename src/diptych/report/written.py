"""What a model wrote: answers and captions with their pictures, facts that are true, and what sight is worth."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from diptych.report.confusion import confusion_section
from diptych.report.grids import contact_sheet, picture
from diptych.report.page import details, table
from diptych.report.plots import Whisker, interval_chart

Json = Mapping[str, Any]
SHOWN = 12
"""How many captions or answers are open; more are behind a click."""


def written_section(artifacts: Json) -> str:
    """The part of the report that shows answers or captions; empty where there are none."""
    return _answers(artifacts) + _captions(artifacts)


def _answers(artifacts: Json) -> str:
    parts = [_against("Is it sight?", artifacts.get("against") or {}, "answers")]
    by_question = artifacts.get("by_question") or []
    if by_question:
        whiskers = [Whisker(f"{r['name']} ({r['n']:,})", r["value"], r["low"], r["high"]) for r in by_question]
        names = [n for n in ("blind", "question_only") if n in by_question[0]]
        rows = [[r["name"], f"{r['value']:.1%}", *(f"{r[n]:.1%}" for n in names)] for r in by_question]
        head = ("asked for", "model", *(n.replace("_", " ") for n in names))
        parts.append("<h3>By what is asked for</h3>" + interval_chart(whiskers))
        parts.append(table(rows, head, numeric=range(1, len(head))))
    for key, title in (("answers_right", "Right answers"), ("answers_wrong", "Wrong answers, the surest first")):
        items = [{"thumb": a.get("thumb", ""), "caption": _answer(a)} for a in artifacts.get(key) or ()]
        if items:
            parts.append(f"<h3>{title}</h3>{_some(items)}")
    if artifacts.get("answers_right") or artifacts.get("answers_wrong"):
        parts.append(confusion_section({k: artifacts.get(k) for k in ("confusion", "top_confusions")}))
    return "".join(parts)


def _answer(one: Json) -> str:
    sure = one.get("confidence")
    words = f"{one['question']} {one['said'] or '(nothing)'}{'' if sure is None else f' ({sure:.0%})'}"
    return words if one.get("right") else f"{words}, but it is {one['answer']}"


def _some(items: Sequence[Json]) -> str:
    more = contact_sheet(items[SHOWN:], size=110)
    return contact_sheet(items[:SHOWN], size=110) + details(f"{len(items) - SHOWN} more", more)


def _captions(artifacts: Json) -> str:
    parts = [_facts(artifacts)]
    blank = artifacts.get("blank_caption")
    lead = "" if blank is None else f"<p class='lead'>Of a blank image it says: {escape(blank or '(nothing)')}</p>"
    tests = {**(artifacts.get("against_blind") or {}), **(artifacts.get("facts_against_blind") or {})}
    parts.append(_against("Is it sight?", tests, "captions", lead))
    titles = {"some": "Captions, as they come", "best": "The best captions", "worst": "The worst captions"}
    for name, title in titles.items():
        rows = artifacts.get(f"captions_{name}") or []
        if rows:
            shown = SHOWN if name == "some" else SHOWN // 2
            more = details(f"{len(rows) - shown} more", _rows(rows[shown:]))
            parts.append(f"<h3>{title}</h3>{_rows(rows[:shown])}{more}")
    unparsed = artifacts.get("unparsed") or {}
    if unparsed.get("count"):
        listed = "".join(f"<li>{escape(c or '(nothing)')}</li>" for c in unparsed["first"])
        parts.append(
            details(f"{unparsed['count']:,} captions that state no fact that can be read", f"<ul>{listed}</ul>")
        )
    return "".join(parts)


def _rows(rows: Sequence[Json]) -> str:
    """Pictures, each with what the model says of it, how that is judged, and what people say."""
    lines = []
    for row in rows:
        said = "".join(f"<li>{escape(str(r))}</li>" for r in row.get("references", ()))
        exact = ", word for word" if row.get("exact") else ""
        lines.append(
            f'<div class="retrieval">{picture(row.get("thumb", ""), "", "target")}<div class="query">'
            f"<p>{escape(str(row.get('caption', '')) or '(nothing)')}</p>"
            f'<span class="rank">CIDEr {row.get("cider", 0):.2f}{exact}</span></div><ol>{said}</ol></div>'
        )
    return f'<div class="two">{"".join(lines)}</div>' if lines else ""


def _facts(artifacts: Json) -> str:
    """How many of the facts that the captions claim are true, beside chance and the model that sees nothing."""
    facts = artifacts.get("facts") or []
    if not facts:
        return ""
    head = ["fact", "claimed", "true", "share", "chance"] + (["blind"] if "blind" in facts[0] else [])
    rows = []
    for fact in facts:
        share = fact["true"] / fact["claimed"] if fact["claimed"] else 0.0
        row = [fact["fact"], f"{fact['claimed']:,}", f"{fact['true']:,}", f"{share:.1%}", f"{fact['chance']:.1%}"]
        rows.append([*row, *([f"{fact['blind']:.1%}"] if "blind" in fact else [])])
    lead = "<p class='lead'>Every claim of every caption, held against what is in the picture.</p>"
    return f"<h3>Facts</h3>{lead}{table(rows, head, numeric=range(1, len(head)))}"


def _against(title: str, tests: Mapping[str, Json], what: str, lead: str = "") -> str:
    """Each paired test in a sentence: what is gained over seeing nothing, on the same items."""
    verdicts = {"better": "better than", "worse": "worse than"}
    said = []
    for name, test in tests.items():
        than = verdicts.get(str(test["verdict"]), "not to be told apart from")
        share = name != "cider"
        gain, low, high = ((100 if share else 1) * test[k] for k in ("difference", "low", "high"))
        if name in ("blind", "question_only"):
            other = {"blind": "those that it gives to blank images", "question_only": "the question-only baseline"}[
                name
            ]
            words = f"Its {what} are <b>{than}</b> {other}"
        else:
            plain = escape({"cider": "CIDEr"}.get(name, name.replace("_", " ")))
            words = f"{plain}: <b>{than}</b> the same model shown blank images"
        digits, unit = (1, " points") if share else (2, "")
        interval = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
        said.append(f"<li>{words}: {gain:+.{digits}f}{unit} {interval}, p = {test['p_value']:.2g}</li>")
    return f"<h3>{title}</h3>{lead}<ul>{''.join(said)}</ul>" if said else lead
