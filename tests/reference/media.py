"""Which image each text token sees, token by token."""


def seen(lengths: list[int], images: list[tuple[int, int]], ahead: int = 0) -> list[list[int | None]]:
    """Per record and token the number of the last image (record, position) that stands at most `ahead` tokens behind
    it; None: there is none."""
    rows: list[list[int | None]] = []
    for record, length in enumerate(lengths):
        row: list[int | None] = []
        for place in range(length):
            before = [i for i, (owner, position) in enumerate(images) if owner == record and position <= place + ahead]
            row.append(before[-1] if before else None)
        rows.append(row)
    return rows
