"""``diptych combine``: a selection out of selections."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORDS",
            help="A and B; A or B minus C; top 0.3 by SCORE of DIR; all of DIR minus A sample 10000 seed=1; brackets "
            "are words: [ A or B ] and C. Read from left to right; A, B: folders of curate or combine, or .npy files",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="where the selection goes: a new folder")],
    split: Annotated[
        list[str] | None, typer.Option(help="of the datasets that are named (again for more; default: train)")
    ] = None,
) -> None:
    """Combine selections as sets, by score and by chance; writes which records stay and how that came about."""
    from diptych.data.combine import combine, write_combination

    found = combine(words, split or ("train",))
    write_combination(found, out)
    typer.echo(str(found))
    typer.echo(f"Selected {len(found.selection):,} records: {out}")
