"""The page of `diptych card`: a set to be looked through, from the values of `data.card.describe`."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from diptych.report import plots
from diptych.report.figures import Histogram, Picture, Pictures, Words
from diptych.report.page import Page, card, cards, columns, details, note, settings_table, table

Json = dict[str, Any]
CUT = 160
"""Characters of a caption that are shown below a picture."""


def card_page(values: Json) -> str:
    """The page as HTML."""
    name = values["path"].rstrip("/").rsplit("/", 1)[-1]
    summary, chosen = values["summary"], values["chosen"]
    under = f"{escape(summary['source'])} &middot; {escape(values['path'])}"
    page = Page(f"Card of {name}", under + (f" &middot; chosen: {escape(chosen['path'])}" if chosen else ""))
    page.section("At a glance", _cards(values), *_warnings(values))
    if chosen:
        page.section("Dropped", *_dropped(chosen), lead="Each filter sees what those before it have left.")
        page.section("Kept", pictures("", chosen["examples"]), lead="Records of those that stay, drawn by their uid.")
    else:
        shown = [_of_summary(s) for s in summary["samples"]]
        page.section("Twelve records", pictures("", shown))
    page.section("Captions", *_captions(values))
    page.section("Images", *_images(values))
    page.section("What it is about", *_clusters(values), lead=_cluster_words(values))
    page.section("Origins", *_origins(values["origins"]), lead=_read(values["origins"]))
    page.section("Splits and their overlap", *_overlap(values))
    page.section("Rejected before it was packed", *_rejects(summary), lead="kept + rejected = seen; none is lost.")
    return page.render()


def pictures(title: str, examples: Sequence[Json]) -> str:
    """A sheet of examples; those without a picture as a table of their captions."""
    shown = [
        Picture(image=e["jpeg"], caption=_caption(e), detail=f"{e['width']} x {e['height']}")
        for e in examples
        if e["jpeg"]
    ]
    bare = [(e["key"], _caption(e)) for e in examples if not e["jpeg"]]
    head = f"<h3>{escape(title)}</h3>" if title and examples else ""
    sheet = Pictures(title="", pictures=tuple(shown)).body() if shown else ""
    return head + sheet + table(bare, ("record", "caption"))


def brief(values: Json) -> str:
    """The same in a few lines, for the terminal."""
    summary, chosen, origins = values["summary"], values["chosen"], values["origins"]
    splits = ", ".join(f"{k} {v['records']:,}" for k, v in summary["splits"].items())
    lines = [f"{values['path']}: {summary['kept']:,} records ({splits})"]
    if chosen:
        lines.append(f"chosen      {chosen['here']:,} of them")
        for f in chosen["filters"]:
            why = ", ".join(f"{r['count']:,} {r['reason']}" for r in f["reasons"]) or "nothing"
            lines.append(f"  {f['name']} dropped {why}")
    lines.append(f"licences    {_counts(origins['licences'])}")
    for o in values["overlap"]:
        lines.append(f"overlap     {o['images']:,} images and {o['captions']:,} captions of {o['other']} in {o['one']}")
    return "\n".join(lines)


def _cards(values: Json) -> str:
    summary, chosen, captions = values["summary"], values["chosen"], values["summary"]["captions"]
    boxes = [card("records", f"{summary['kept']:,}", f"of {summary['seen']:,} seen")]
    if chosen:
        share = chosen["here"] / max(chosen["seen"], 1)
        boxes.append(
            card("chosen", f"{chosen['here']:,}", f"{share:.1%} of {chosen['seen']:,} of {', '.join(chosen['splits'])}")
        )
    boxes += [
        card("texts", f"{captions['texts']:,}", f"{captions['distinct']:,} distinct first captions"),
        card("repeated captions", f"{captions['duplicate_share']:.1%}", "of the records share theirs with another"),
        card("repeated images", f"{summary['duplicate_images']['share']:.1%}", "of the records share theirs"),
        card("opt-outs", f"{_opt_outs(values):,}", "left out, or noted on a record"),
    ]
    if synthetic := values["origins"]["synthetic"]:
        share = synthetic / max(values["origins"]["texts"], 1)
        boxes.append(card("synthetic captions", f"{share:.1%}", "of all texts that were read"))
    return cards(*boxes)


def _opt_outs(values: Json) -> int:
    refused = sum(r["count"] for r in values["summary"]["rejects"] if _asks(r["reason"]))
    return int(refused + sum(values["origins"]["opt_outs"].values()))


def _asks(reason: str) -> bool:
    return reason.startswith("opt_out") or reason == "robots_txt"


def _warnings(values: Json) -> list[str]:
    """What a careful person would say on seeing these numbers."""
    said = []
    for o in values["overlap"]:
        if o["images"] and o["one"] == "train":
            advice = f"Scores on {o['other']} are too high by that: drop them with a filter before you train."
            said.append(note(f"{o['images']:,} images of {o['other']} are in train too.", advice, "warning"))
    origins = values["origins"]
    silent = origins["licences"].get("nothing said", 0)
    if origins["read"] and silent == origins["read"]:
        said.append(note("No record says under which licence it may be used.", "Collect with licence=... if you know."))
    if origins["opt_outs"]:
        asks = f"{sum(origins['opt_outs'].values()):,} records ask not to be used for training."
        said.append(note(asks, "They were packed all the same: leave them out.", "warning"))
    return said


def _dropped(chosen: Json) -> list[str]:
    if chosen["steps"]:
        rows = [(s["step"], f"{s['records']:,}") for s in chosen["steps"]]
        return [table(rows, ("step", "records left"), numeric=(1,))]
    left, stages = chosen["seen"], [("all", "", f"{chosen['seen']:,}", "100.0%")]
    settings, parts = list[str](), list[str]()
    for number, found in enumerate(chosen["filters"], 1):
        gone = sum(r["count"] for r in found["reasons"])
        left -= gone
        share = f"{left / max(chosen['seen'], 1):.1%}"
        stages.append((f"{number} {found['name']}", f"-{gone:,}", f"{left:,}", share))
        settings.append(details(f"settings of {number} {found['name']}", settings_table(found["settings"])))
        for reason in found["reasons"]:
            title = f"{found['name']}: {reason['reason']} ({reason['count']:,})"
            parts.append(pictures(title, reason["examples"]))
    return [table(stages, ("filter", "dropped", "left", "share of all"), numeric=(1, 2, 3)), *settings, *parts]


def _captions(values: Json) -> list[str]:
    captions = values["summary"]["captions"]
    top = tuple((_short(t["text"]), f"{t['count']:,}") for t in captions["top"])
    repeated = Words(title="Repeated most", head=("caption", "records"), rows=top, numeric=(1,), shown=8)
    spread = [(k, f"{v:,}") for k, v in captions["alternatives"].items()]
    return [
        columns(*_compared(values, "words", "words of the first caption", captions["characters"], "characters")),
        table(spread, ("captions of a record", "records"), numeric=(0, 1)),
        repeated.html() if top else "",
    ]


def _images(values: Json) -> list[str]:
    images = values["summary"]["images"]
    groups = []
    for group in values["repeats"]:
        groups.append(pictures(f"{group['count']:,} records share this image", group["examples"]))
    return [
        columns(*_compared(values, "short_side", "short side, pixels", images["width"], "width, pixels")),
        table([(k, f"{v:,}") for k, v in images["formats"].items()], ("format", "images"), numeric=(1,)),
        details(f"images that are repeated most ({len(groups)})", "".join(groups)),
    ]


def _compared(values: Json, name: str, label: str, otherwise: Json | None, other: str) -> list[str]:
    """Of the whole and of what was chosen, where something was; else of the whole as the summary has it."""
    if not values["chosen"]:
        return [_histogram(otherwise, other)]
    found = values["chosen"][name]
    return [_histogram(found["whole"], f"{label}: all"), _histogram(found["kept"], f"{label}: chosen")]


def _histogram(values: Json | None, label: str) -> str:
    if not values or not values["counts"]:
        return ""
    starts = tuple(round(e) if e > 20 else round(e, 1) for e in values["edges"][:-1])
    median, p5, p95 = (plots.short(values[k]) for k in ("median", "p5", "p95"))
    words = f"{label} (median {median}, 5 % to 95 %: {p5} to {p95})"
    return Histogram(title="", starts=starts, counts=tuple(values["counts"]), x_label=words).body()


def _clusters(values: Json) -> list[str]:
    groups = values["clusters"]
    head = ("words", "share", "records") + (("of these chosen",) if values["chosen"] else ())
    rows = []
    for g in groups:
        row = [_title(g), f"{g['share']:.1%}", f"{g['count']:,}"]
        rows.append(row + ([f"{g['kept']:.0%}"] if values["chosen"] else []))
    sheets = [details(f"{_title(g)} ({g['count']:,})", pictures("", g["examples"])) for g in groups[1:]]
    first = pictures(_title(groups[0]), groups[0]["examples"]) if groups else ""
    return [table(rows, head, numeric=(1, 2, 3)), first, *sheets]


def _title(group: Json) -> str:
    return ", ".join(group["words"]) or "none of the words that others share"


def _cluster_words(values: Json) -> str:
    n = sum(g["count"] for g in values["clusters"])
    return (
        f"{n:,} records, drawn by their uid, in groups by their vectors or the words of their captions (spherical "
        "k-means), the most typical first; each group is named by the words that set it apart."
    )


def _origins(origins: Json) -> list[str]:
    tables = (
        ("Licences", "licence", "licences"),
        ("Collected by", "collector", "collectors"),
        ("Sites and files", "site or file", "hosts"),
        ("Languages, as the records say", "language", "languages"),
        ("Scripts of first captions", "script", "scripts"),
        ("Opt-outs noted on records", "asks", "opt_outs"),
    )
    found = []
    for title, head, name in tables:
        rows = tuple((k, f"{v:,}", f"{v / max(origins['read'], 1):.1%}") for k, v in origins[name].items())
        if rows:
            made = Words(title=title, head=(head, "records", "share"), rows=rows, numeric=(1, 2), shown=10)
            found.append(f"<div>{made.html()}</div>")
    return [columns(*found)] if found else []


def _read(origins: Json) -> str:
    sample = "all" if origins["read"] == origins["of"] else f"of {origins['of']:,}, drawn by their uid"
    return f"From the meta of {origins['read']:,} records ({sample})."


def _overlap(values: Json) -> list[str]:
    splits = values["summary"]["splits"]
    parts = [
        table(
            [(k, f"{v['records']:,}", f"{v['bytes'] / 1e6:,.1f}", v["shards"]) for k, v in splits.items()],
            ("split", "records", "MB", "shards"),
            numeric=(1, 2, 3),
        )
    ]
    rows = [(o["other"], o["one"], f"{o['images']:,}", f"{o['captions']:,}", f"{o['of']:,}") for o in values["overlap"]]
    head = ("records of", "that are in", "with the same image", "with the same first caption", "of")
    parts.append(table(rows, head, numeric=(2, 3, 4)))
    for o in values["overlap"]:
        parts.append(pictures(f"In {o['one']} and {o['other']}", o["examples"]))
    return parts


def _rejects(summary: Json) -> list[str]:
    found = []
    for r in sorted(summary["rejects"], key=lambda r: not _asks(r["reason"])):
        rows = [(_short(e["key"]), _short(e["where"]), e["message"]) for e in r["examples"]]
        asks = "asked not to be used - " if _asks(r["reason"]) else ""
        found.append(details(f"{asks}{r['reason']}: {r['count']:,}", table(rows, ("record", "where", "why"))))
    return found


def _of_summary(sample: Json) -> Json:
    return {**sample, "uid": "", "captions": sample["captions"]}


def _caption(example: Json) -> str:
    captions = example["captions"]
    more = f" (+{len(captions) - 1} more)" if len(captions) > 1 else ""
    return (_short(captions[0]) if captions else "(no caption)") + more


def _short(text: str) -> str:
    return text if len(text) <= CUT else text[: CUT - 3] + "..."


def _counts(counts: Mapping[str, int], most: int = 4) -> str:
    shown = ", ".join(f"{v:,} {k}" for k, v in list(counts.items())[:most]) or "none was read"
    return shown + (f", {len(counts) - most} more" if len(counts) > most else "")
