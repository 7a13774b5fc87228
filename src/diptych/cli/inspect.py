"""``diptych inspect``: look at a dataset before training on it."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    out: Annotated[Path | None, typer.Option(help="the HTML page (default: DIR/inspect.html)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the summary as JSON instead")] = False,
) -> None:
    """Count, measure and show a dataset: sizes, captions, duplicates, rejects, twelve samples."""
    from diptych.core.files import write_atomic
    from diptych.data.dataset import Dataset
    from diptych.data.summary import summarise
    from diptych.report.dataset_page import brief, dataset_page

    summary = summarise(Dataset.open(data))
    if json:
        import json as j

        typer.echo(j.dumps(summary, ensure_ascii=False))
        return
    page = out or data / "inspect.html"
    write_atomic(page, dataset_page(summary))
    typer.echo(brief(summary))
    typer.echo(f"Open {page}")
