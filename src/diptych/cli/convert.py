"""``diptych convert``: other people's weights in, ours out."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    format: Annotated[
        str,
        typer.Argument(
            help="open_clip, openai, transformers, torchscale; to-open_clip, to-transformers, to-torchscale"
        ),
    ],
    path: Annotated[Path, typer.Argument(help="the weights (in) or the run (to-...)")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
) -> None:
    """Convert weights exactly, tokenizer and preprocessing included."""
    from diptych.checkpoints.convert import convert, convert_to

    if format.startswith("to-"):
        written = convert_to(format.removeprefix("to-"), path, out)
    else:
        written = convert(format, path, out)
    typer.echo(f"wrote {written}")
