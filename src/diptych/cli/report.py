"""``diptych report``: one HTML file that shows a run."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    out: Annotated[Path | None, typer.Option(help="the HTML page (default: RUN/report.html)")] = None,
) -> None:
    """Write a self-contained page: curves, retrievals, confusion, rejects, the doctor's words, config, machine."""
    from diptych.core.files import write_atomic
    from diptych.report.run_page import run_page

    page = out or run / "report.html"
    write_atomic(page, run_page(run))
    typer.echo(f"Open {page}")
