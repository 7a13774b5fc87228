"""A comparison of two models as tables in the terminal: one a task, then what the headline tests say, then caveats."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diptych.report.terminal import is_share, shown

Json = Mapping[str, Any]

MARKS = {"better": "[green]better[/]", "worse": "[red]worse[/]", "indistinguishable": "unclear", "": "-"}


def comparison_table(found: Json, console: Console | None = None) -> None:
    """Print a comparison, as `to_dict` of it gives it: a against b by task; * marks each task's headline metric."""
    console = console or Console()
    console.print(f"\na = [bold]{escape(_side(found, 'a'))}[/]   b = [bold]{escape(_side(found, 'b'))}[/]")
    for (task, data, split), group in groupby(found["rows"], key=lambda r: (r["task"], r["data"], r["split"])):
        rows = list(group)
        n = max(row["n"] for row in rows)
        where = f"{escape(data or 'its own data')} ({escape(split)}), n = {n:,}"
        console.print(f"\n[bold]{escape(task)}[/] on {where}", soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column("metric")
        for head in ("a", "b", "a - b [95 %]", "p (Holm)"):
            table.add_column(escape(head), justify="right", no_wrap=True)
        table.add_column("a is", no_wrap=True)
        for row in rows:
            a, b, difference, ends, _, p, _ = numbers(row)
            mark = "* " if row["family"] == "headline" else "  "
            apart = difference if row["low"] is None else f"{difference} [{ends}]"
            table.add_row(mark + row["metric"], a, b, escape(apart), p, MARKS[row["verdict"]])
        console.print(table)
    heads = [row for row in found["rows"] if row["family"] == "headline"]
    if heads:
        console.print("\n[bold]Headlines[/]")
    for row in heads:
        console.print(f"  {escape(row['task'])}, {row['metric']}: {escape(row['words'])}", soft_wrap=True)
    if found["not_compared"]:
        console.print("\n[bold]Not compared[/]")
    for one in found["not_compared"]:
        console.print(f"  {escape(one['task'])}: {escape(one['why'])}", soft_wrap=True)
    for text in found["notes"]:
        console.print(f"\n{escape(text)}", soft_wrap=True)


def numbers(row: Json) -> tuple[str, ...]:
    """A row's values as they are shown: a, b, difference, interval, p, Holm's p, n. Differences of shares in points."""
    share = is_share(row["metric"])
    scale, digits = (100, 1) if share else (1, 3)
    ends = "-" if row["low"] is None else f"{scale * row['low']:+.{digits}f}, {scale * row['high']:+.{digits}f}"
    p_values = ("-" if row[name] is None else p_shown(row[name]) for name in ("p_value", "holm"))
    sides = (shown(row["a"], share), shown(row["b"], share))
    return (*sides, f"{scale * row['difference']:+.{digits}f}", ends, *p_values, f"{row['n']:,}")


def p_shown(p: float) -> str:
    """A p-value: what lies below a thousandth has no more digits than the test has draws."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _side(found: Json, side: str) -> str:
    runs = found[f"runs_{side}"]
    return f"{found[side]}" + (f" ({runs} runs)" if runs > 1 else "")
