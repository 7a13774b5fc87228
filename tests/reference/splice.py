"""Images' tokens spliced into rows of text, record by record, with lists."""

from torch import Tensor


def spliced_rows(
    lengths: list[int], width: int, image_tokens: int, images: list[tuple[int, int]]
) -> list[list[tuple[str, int]]]:
    """Per record what stands in order: ("text", number of the token matrix) or ("image", number of image token)."""
    rows = []
    for record, length in enumerate(lengths):
        row: list[tuple[str, int]] = []
        for place in range(length + 1):
            for i, (owner, position) in enumerate(images):
                if owner == record and position == place:
                    row += [("image", i * image_tokens + j) for j in range(image_tokens)]
            if place < length:
                row.append(("text", record * width + place))
        rows.append(row)
    return rows


def targets_of(rows: list[list[tuple[str, int]]], wanted: Tensor) -> list[tuple[int, int, int]]:
    """(record, place in it of the predecessor, number of the target) of each text token that is wanted."""
    found = []
    for record, row in enumerate(rows):
        for place, (kind, number) in enumerate(row):
            if kind == "text" and place > 0 and bool(wanted.flatten()[number]):
                found.append((record, place - 1, number))
    return found
