"""``diptych paint``: a picture of words."""

import re
from pathlib import Path
from typing import Annotated

import typer

SETTING = re.compile(r"[a-z_]+=\S*")


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model, that paints")],
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT|FIELD=VALUE",
            help='what to paint, such as "a red circle" (several: a row each); and how: seed=3, guidance=4, steps=50, '
            "sampler=ddim, temperature=0.9, top_k=100, top_p=0.95",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="the PNG")],
    grid: Annotated[int, typer.Option(help="so many pictures a text, each with the next seed", min=1)] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a picture that is there")] = False,
) -> None:
    """Paint texts: one picture as it is, several as a grid."""
    from diptych.serve.paint import paint

    settings = [t for t in texts if SETTING.fullmatch(t)]
    words = [t for t in texts if not SETTING.fullmatch(t)]
    typer.echo(f"Open {paint(run, words, out, grid, settings, overwrite)}")
