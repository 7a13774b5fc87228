"""``diptych study``: several runs that answer one question together."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="a study; without it they are listed")] = "",
    settings: Annotated[list[str] | None, typer.Argument(help="field=value settings of the study")] = None,
    out: Annotated[
        Path | None, typer.Option(help="where runs, results and pictures go (default: studies/NAME)")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="a packed dataset (repeat for several)")] = None,
    seeds: Annotated[int, typer.Option(help="how often each run is made")] = 0,
    samples: Annotated[int, typer.Option(help="samples that the longest run sees")] = 0,
) -> None:
    """Make the runs of a study, each once however often it is stopped, and write what they say together."""
    import json as j

    from diptych.studies.find import studies, study

    if not name:
        for known, config in studies().items():
            typer.echo(f"{known}  {config().build().summary}")
        typer.echo("\nMake one: diptych study NAME --out DIR")
        return
    given = {"data": list(data or []), "seeds": seeds, "samples_seen": samples}
    chosen = [*(settings or []), *(f"{field}={j.dumps(value)}" for field, value in given.items() if value)]
    folder = out or Path("studies") / name
    report = study(name, chosen).run(folder)
    typer.echo(report.text)
    typer.echo(f"Kept in {folder}: {', '.join(['report.md', 'results.json', *report.files])}.")
