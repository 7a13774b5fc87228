"""How far a model's confidence can be trusted: accuracy against confidence, one dot a bin (a reliability diagram)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SIDE, LEFT, BOTTOM, TOP = 300, 60, 40, 12


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Dots at (mean confidence, accuracy) of each bin, as large as the bin is full; on the diagonal, a model means what
    it says. Each bin: n, confidence, accuracy. Source: DeGroot and Fienberg, 1983; Guo et al., 2017."""
    total = sum(int(b["n"]) for b in bins)
    if not total:
        return ""
    inner = SIDE - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x * inner, SIDE - BOTTOM - y * inner

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        px, py = at(tick, tick)
        left, right, foot = LEFT, LEFT + inner, SIDE - BOTTOM
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
        parts.append(f'<text class="tick" x="{px:.1f}" y="{foot + 16}" text-anchor="middle">{tick:.0%}</text>')
    (x0, y0), (x1, y1) = at(0.0, 0.0), at(1.0, 1.0)
    parts.append(f'<line class="reference" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    for one in bins:
        px, py = at(float(one["confidence"]), float(one["accuracy"]))
        radius = 2.5 + 13 * math.sqrt(int(one["n"]) / total)
        words = f"{one['accuracy']:.1%} right where it says {one['confidence']:.1%} ({one['n']:,} images)"
        parts.append(
            f'<circle class="estimate" fill-opacity="0.65" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">'
            f"<title>{words}</title></circle>"
        )
    middle = LEFT + inner / 2
    parts.append(f'<text class="axis" x="{middle}" y="{SIDE - 6}" text-anchor="middle">confidence</text>')
    turn = f"rotate(-90 14 {TOP + inner / 2})"
    parts.append(
        f'<text class="axis" x="14" y="{TOP + inner / 2}" text-anchor="middle" transform="{turn}">accuracy</text>'
    )
    box = f"0 0 {LEFT + inner + 20} {SIDE}"
    style = "max-width: 420px"
    return (
        "<h3>Does it mean what it says?</h3><p class='lead'>Each dot is the images of one band of confidence, as large "
        "as they are many. Below the dashed line the model is surer than it is right.</p>"
        f'<figure class="chart" style="{style}"><svg viewBox="{box}" role="img" aria-label="reliability">'
        f"{''.join(parts)}</svg></figure>"
    )
