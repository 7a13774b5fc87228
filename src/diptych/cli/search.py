"""``diptych search``: find images by words or by another image."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model")],
    text: Annotated[str, typer.Argument(help='words, such as "a red fruit"')] = "",
    *,
    data: Annotated[Path, typer.Option(help="the packed dataset to search")],
    image: Annotated[Path | None, typer.Option(help="search with a picture instead")] = None,
    split: Annotated[str, typer.Option(help="which split (default: all of them)")] = "",
    k: Annotated[int, typer.Option("-k", help="how many to show")] = 10,
    save: Annotated[
        Path | None, typer.Option(help="write the found images and a contact sheet into this folder")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the hits as JSON")] = False,
) -> None:
    """Search a dataset; its embeddings are computed once and kept in the run."""
    import json as j
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from diptych.core.errors import ConfigError
    from diptych.serve.search import save_hits, search

    if bool(text) == bool(image):
        raise ConfigError(
            'a search must have words or --image; got both or neither. Example: diptych search RUN "a fruit"'
        )
    hits = search(run, data, text=text or None, image=image, split=split, k=k)
    if json:
        typer.echo(j.dumps([asdict(h) for h in hits], ensure_ascii=False))
    else:
        table = Table(box=None, pad_edge=False)
        for head, justify in (("", "right"), ("score", "right"), ("caption", "left"), ("record", "left")):
            table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for hit in hits:
            table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.caption, f"{hit.split}/{hit.key}")
        Console().print(table)
    if save:
        typer.echo(f"Open {save_hits(hits, data, save, title=text or str(image))}")
