"""``diptych recaption``: a packed dataset with captions that a model wrote and another has accepted."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    *,
    writer: Annotated[Path, typer.Option("--with", help="a run, a checkpoint or a converted model, that writes")],
    out: Annotated[Path, typer.Option(help="where to put the new dataset")],
    judge: Annotated[Path | None, typer.Option("--filter", help="a model that judges; without one all is kept")] = None,
    captions: Annotated[int, typer.Option(help="captions written of each image")] = 1,
    prompt: Annotated[str, typer.Option(help='how each caption begins, such as "a picture of"')] = "",
    top_p: Annotated[float, typer.Option(help="draw from the likeliest tokens with so much probability")] = 0.9,
    temperature: Annotated[float, typer.Option(help="above 1: draw more boldly, below: less")] = 1,
    max_tokens: Annotated[int, typer.Option(help="at most so many tokens a caption (0: as the model allows)")] = 0,
    seed: Annotated[int, typer.Option(help="of the draws, with each record's uid")] = 0,
    rule: Annotated[
        str, typer.Option(help="threshold: drop every text that scores below it; better: keep what beats the originals")
    ] = "threshold",
    threshold: Annotated[float, typer.Option(help="of the filter's score: log-odds of a match, or a cosine")] = 0,
    weight: Annotated[float, typer.Option(help="of a written caption in training, an original's being 1")] = 1,
    split: Annotated[list[str] | None, typer.Option(help="a split to caption (again: another); else train")] = None,
    tokenizer: Annotated[str, typer.Option(help="kept: the dataset's own; train: a new one on all captions")] = "kept",
    batch_size: Annotated[int, typer.Option(help="images at a time")] = 64,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
) -> None:
    """Caption a packed dataset anew; what was cut off goes on where it was."""
    import torch

    import diptych
    from diptych.data.dataset import Dataset
    from diptych.serve.caption_writing import CaptionWriting
    from diptych.serve.recaption import RecaptionConfig, recaption

    writing = CaptionWriting(
        captions=captions,
        prompt=prompt,
        top_p=top_p,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        batch_size=batch_size,
    )
    choices = {"rule": rule, "tokenizer": tokenizer, "splits": tuple(split or ("train",))}
    config = RecaptionConfig(writing=writing, threshold=threshold, weight=weight, **choices)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [None if path is None else diptych.load(path).to(device) for path in (writer, judge)]
    assert models[0] is not None
    typer.echo(str(recaption(Dataset.open(data), models[0], out, config, models[1], overwrite)))
