"""Winoground's scores the slow way: each item's four scores by name, each condition as the paper writes it."""

from collections.abc import Sequence


def winoground_scores(scores: Sequence[Sequence[Sequence[float]]]) -> tuple[float, float, float]:
    """Text, image and group score from s[item][image][caption]."""
    text = image = group = 0
    for item in scores:
        c0_i0, c1_i0 = item[0]
        c0_i1, c1_i1 = item[1]
        text_right = c0_i0 > c1_i0 and c1_i1 > c0_i1
        image_right = c0_i0 > c0_i1 and c1_i1 > c1_i0
        text += text_right
        image += image_right
        group += text_right and image_right
    return text / len(scores), image / len(scores), group / len(scores)
