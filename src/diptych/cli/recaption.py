"""``diptych recaption``: a packed dataset with captions that a model wrote and another has accepted."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE",
            help="rule=better, threshold=0.5 (of the filter's score), weight=0.5 (of a written caption), "
            "splits=[train,val], tokenizer=train; of the writing: writing.captions=3, writing.prompt='a picture of', "
            "writing.top_p=0.9, writing.seed=1",
        ),
    ] = None,
    *,
    writer: Annotated[str, typer.Option("--with", help="a run, a checkpoint or a converted model, that writes")],
    out: Annotated[Path, typer.Option(help="where to put the new dataset")],
    judge: Annotated[str, typer.Option("--filter", help="a model that judges; without one all is kept")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
) -> None:
    """Caption a packed dataset anew; what was cut off goes on where it was."""
    import torch

    from diptych.checkpoints.open_model import open_model
    from diptych.core.config import override
    from diptych.data.dataset import Dataset
    from diptych.serve.recaption import RecaptionConfig, recaption

    config = override(RecaptionConfig(), settings or [])
    assert isinstance(config, RecaptionConfig)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    writes, judges = (open_model(words, device) if words else None for words in (writer, judge))
    assert writes is not None
    typer.echo(str(recaption(Dataset.open(data), writes, out, config, judges, overwrite)))
