"""``diptych score``: what a model says of every pair, as a column that filters read."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIELD=VALUE", help="by=score, captions=max, splits=[train,val], batch_size=32"),
    ] = None,
    *,
    model: Annotated[str, typer.Option("--with", help="a run, openclip:PATH, hf:PATH or openai:PATH")],
    name: Annotated[str, typer.Option(help="what the scores are called")] = "quality",
    engine: Annotated[str, typer.Option(help="pool: this machine; ray: a Ray cluster")] = "pool",
    jobs: Annotated[int, typer.Option(help="shards worked on at once, each with a copy of the model")] = 1,
) -> None:
    """Score every pair of a dataset with a model; the dataset itself stays as it is."""
    from diptych.core.config import override
    from diptych.data.executors.executor import executor
    from diptych.serve.score import ScoringConfig, score_dataset

    config = override(ScoringConfig(), settings or [])
    assert isinstance(config, ScoringConfig)
    typer.echo(f"Scores: {score_dataset(data, model, name, executor(engine, jobs), config)}")
