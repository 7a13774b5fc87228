"""``diptych curate``: which records of a packed dataset stay, and why the others go."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    recipe: Annotated[str, typer.Argument(help="a curation by name (datacomp:basic), or a .toml of filters")],
    *,
    out: Annotated[Path, typer.Option(help="where the selection and the table of reasons go")],
    engine: Annotated[str, typer.Option(help="pool: the processes of this machine; ray: a Ray cluster")] = "pool",
    jobs: Annotated[int, typer.Option(help="shards worked on at once (0: one a core)")] = 0,
) -> None:
    """Pass a dataset through filters: writes which records stay and a reason for every other; copies nothing."""
    from diptych.data.curate import curate
    from diptych.data.curations.curation import curation
    from diptych.data.executors.executor import executor

    typer.echo(str(curate(data, curation(recipe), out, executor(engine, jobs))))
