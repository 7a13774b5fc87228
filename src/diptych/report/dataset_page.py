"""The page of `diptych inspect`: what is in a dataset, from the values of `data.summary.summarise`."""

import math
from html import escape
from typing import Any

from diptych.report import grids, plots
from diptych.report.page import Page, card, cards, columns, details, note, table

Json = dict[str, Any]


def dataset_page(summary: Json) -> str:
    """The page as HTML."""
    name = summary["path"].rstrip("/").rsplit("/", 1)[-1]
    page = Page(f"Dataset {name}", f"{escape(summary['source'])} &middot; {escape(summary['path'])}")
    page.section("At a glance", _cards(summary), *_advice(summary))
    page.section("Twelve samples", grids.contact_sheet([_sample(s) for s in summary["samples"]]))
    images, captions = summary["images"], summary["captions"]
    page.section(
        "Images",
        columns(
            _histogram(images["width"], "width, pixels"),
            _histogram(images["height"], "height, pixels"),
            _histogram(images["bytes"], "bytes of a record"),
        ),
        table([(k, f"{v:,}") for k, v in images["formats"].items()], ("format", "images"), numeric=(1,)),
    )
    page.section(
        "Captions",
        columns(
            _histogram(captions["characters"], "characters of the first caption"),
            _histogram(captions["tokens"], "tokens, specials counted"),
        ),
        table(
            [(k, f"{v:,}") for k, v in captions["alternatives"].items()], ("captions of a record", "records"), (0, 1)
        ),
        "<h3>Repeated most</h3>" if captions["top"] else "",
        table([(t["text"], f"{t['count']:,}") for t in captions["top"]], ("caption", "records"), numeric=(1,)),
    )
    page.section("Rejects", *(_reject(r) for r in summary["rejects"]), lead="kept + rejected = seen; none is lost.")
    page.section("Splits", _splits(summary))
    return page.render()


def brief(summary: Json) -> str:
    """The same in a few lines, for the terminal."""
    captions, tokens = summary["captions"], summary["captions"]["tokens"]
    splits = ", ".join(f"{k} {v['records']:,}" for k, v in summary["splits"].items())
    rejects = ", ".join(f"{r['count']:,} {r['reason']}" for r in summary["rejects"]) or "none"
    lines = [
        f"{summary['path']}: {summary['kept']:,} records ({splits})",
        f"images      {_range(summary['images']['width'])} x {_range(summary['images']['height'])} pixels, "
        + ", ".join(f"{v:,} {k}" for k, v in summary["images"]["formats"].items())
        + f"; {summary['duplicate_images']['share']:.1%} share their image with another record",
        f"captions    {captions['texts']:,} texts, {_range(captions['characters'])} characters; "
        f"{captions['duplicate_share']:.1%} of the records share their caption with another",
        f"rejected    {rejects}",
    ]
    if tokens:
        lines.insert(
            3,
            f"tokens      {_range(tokens)} of {tokens['context_length']}; {tokens['truncated_share']:.1%} of the "
            f"captions are cut; vocabulary {tokens['vocab_size']:,}",
        )
    return "\n".join(lines)


def _cards(summary: Json) -> str:
    captions, tokens = summary["captions"], summary["captions"]["tokens"]
    boxes = [
        card("records kept", f"{summary['kept']:,}", f"of {summary['seen']:,} seen"),
        card("rejected", f"{summary['rejected']:,}", "named in rejected.parquet"),
        card("texts", f"{captions['texts']:,}", f"{captions['distinct']:,} distinct first captions"),
        card("repeated captions", f"{captions['duplicate_share']:.1%}", "of the records share theirs with another"),
        card("repeated images", f"{summary['duplicate_images']['share']:.1%}", "of the records share theirs"),
    ]
    if tokens:
        cut = f"of {tokens['measured']:,} texts, at {tokens['context_length']} tokens"
        boxes.append(card("cut captions", f"{tokens['truncated_share']:.1%}", cut))
    return cards(*boxes)


def _advice(summary: Json) -> list[str]:
    """What a careful person would say on seeing these numbers."""
    captions, tokens = summary["captions"], summary["captions"]["tokens"]
    said = []
    if captions["duplicate_share"] > 0.3:
        said.append(
            note(
                f"{captions['duplicate_share']:.0%} of the records share their caption with another record.",
                "Pairs with equal captions teach a contrastive model little; see the list below for what repeats.",
                "warning",
            )
        )
    if tokens and tokens["truncated_share"] > 0.05:
        said.append(
            note(
                f"{tokens['truncated_share']:.0%} of the captions are longer than {tokens['context_length']} tokens.",
                "Pack with a longer context_length=N or a larger vocab_size=N.",
                "warning",
            )
        )
    width = summary["images"]["width"]
    if width and width["median"] > 640:
        said.append(
            note(
                f"Half of the images are wider than {width['median']:,.0f} pixels.",
                "Pack with --resize (for instance 288 for models at 224): decoding large images starves training.",
            )
        )
    return said


def _histogram(values: Json | None, label: str) -> str:
    if not values or not values.get("counts"):
        return ""
    edges, counts = values["edges"], values["counts"]
    whole = all(float(e).is_integer() for e in edges)
    starts = [round(e) if whole or e > 20 else round(e, 2) for e in edges[:-1]]
    median, p5, p95 = (plots.short(values[k]) for k in ("median", "p5", "p95"))
    return plots.histogram(starts, counts, f"{label} (median {median}, 5 % to 95 %: {p5} to {p95})")


def _sample(sample: Json) -> Json:
    captions = sample["captions"]
    more = f" (+{len(captions) - 1} more)" if len(captions) > 1 else ""
    first = captions[0] if captions else "(no caption)"
    return {"thumb": sample["jpeg"], "caption": f"{first}{more} - {sample['width']} x {sample['height']}"}


def _reject(reject: Json) -> str:
    rows = [(e["key"], e["where"], e["message"]) for e in reject["examples"]]
    return details(f"{reject['reason']}: {reject['count']:,}", table(rows, ("record", "where", "why")))


def _splits(summary: Json) -> str:
    rows = [(k, f"{v['records']:,}", f"{v['bytes'] / 1e6:,.1f}", v["shards"]) for k, v in summary["splits"].items()]
    return table(rows, ("split", "records", "MB", "shards"), numeric=(1, 2, 3))


def _range(values: Json | None) -> str:
    if not values:
        return "no"
    low, high = values["min"], values["max"]
    return f"{math.floor(low):,}" if low == high else f"{math.floor(low):,} to {math.ceil(high):,}"
