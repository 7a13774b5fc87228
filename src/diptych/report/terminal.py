"""Estimates as a table in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def estimates_table(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print metrics (anything with value, low, high, chance, n) with their intervals; ^ marks those above chance."""
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    for head in ("value", "95 % interval", "chance", "n"):
        table.add_column(head, justify="right")
    table.add_column("")
    for name, m in metrics.items():
        share = is_share(name)
        table.add_row(
            name,
            shown(m.value, share),
            f"{shown(m.low, share)} .. {shown(m.high, share)}",
            "-" if m.chance is None else shown(m.chance, share, digits=2),
            f"{m.n:,}",
            "^" if m.above_chance else "",
        )
    (console or Console()).print(table)


SHARES = (
    *("recall", "acc", "share", "precision", "gain", "exact", "chair", "right", "clean", "robust", "corrupted", "drop"),
    *("severity", "noise", "blur", "brightness", "contrast", "pixelate", "jpeg", "pointing", "group_gap", "advantage"),
    *("image_score", "text_score", "group_score", "hit_at"),
)
NUMBERS = ("nll", "brier", "ece", "cider", "bleu", "rouge", "iou", "rank", "mce", "contrastive")


def is_share(name: str) -> bool:
    """Whether a metric is a share of items, or a difference of shares, and so is shown in percent."""
    return name == "f1" or (any(w in name for w in SHARES) and not any(w in name.split("_") for w in NUMBERS))


def shown(value: float | int, share: bool, digits: int = 1) -> str:
    """A number as the tables show it."""
    return f"{value:.{digits}%}" if share else f"{value:.4g}"
