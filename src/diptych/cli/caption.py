"""``diptych caption``: what a model says of pictures."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model, that writes")],
    images: Annotated[list[Path], typer.Argument(help="pictures")],
    *,
    prompt: Annotated[str, typer.Option(help='how each caption begins, such as "a picture of"')] = "",
    beam: Annotated[int, typer.Option(help="follow so many captions at once (1: always the likeliest token)")] = 1,
    top_p: Annotated[float, typer.Option(help="below 1: draw from the likeliest tokens with so much probability")] = 1,
    temperature: Annotated[float, typer.Option(help="above 1: draw more boldly, below: less")] = 1,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    max_tokens: Annotated[int, typer.Option(help="at most so many tokens a caption (0: as the model allows)")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print the captions as JSON")] = False,
) -> None:
    """Write a caption for each picture."""
    import json as j

    from rich.console import Console
    from rich.table import Table

    import diptych

    model = diptych.load(run)
    how = {"beams": beam, "top_p": top_p, "temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    captions = model.caption(images, prompt, **how)
    if json:
        rows = [{"image": str(i), "caption": c} for i, c in zip(images, captions, strict=True)]
        typer.echo(j.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for head in ("image", "caption"):
        table.add_column(head, overflow="fold")
    for image, caption in zip(images, captions, strict=True):
        table.add_row(str(image), caption or "(nothing)")
    Console().print(table)
