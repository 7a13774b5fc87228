"""``diptych diff``: what two sets have in common and what not."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    one: Annotated[Path, typer.Argument(metavar="A", help="a packed dataset, a selection or a curation")],
    other: Annotated[Path, typer.Argument(metavar="B", help="another")],
    examples: Annotated[int, typer.Option(help="changed captions that are shown")] = 5,
    json: Annotated[bool, typer.Option("--json", help="print the values as JSON instead")] = False,
) -> None:
    """Compare two sets: records that only one has and why the other dropped them, changed captions and splits."""
    from diptych.data.difference import difference, told

    found = difference(one, other, examples)
    if json:
        import json as j

        typer.echo(j.dumps(found, ensure_ascii=False))
        return
    typer.echo(told(found))
