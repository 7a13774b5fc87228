"""``diptych embed``: a model's vector of every record, as files that filters read."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="splits=[train,val], batch_size=32")
    ] = None,
    *,
    model: Annotated[str, typer.Option("--with", help="a run, openclip:PATH, hf:PATH or openai:PATH")],
    name: Annotated[str, typer.Option(help="what the vectors are called")] = "clip",
    of: Annotated[str, typer.Option(help="image, or text: the first caption")] = "image",
    engine: Annotated[str, typer.Option(help="pool: this machine; ray: a Ray cluster")] = "pool",
    jobs: Annotated[int, typer.Option(help="shards worked on at once, each with a copy of the model")] = 1,
) -> None:
    """Embed every record of a dataset with a model; the dataset itself stays as it is."""
    from diptych.core.config import override
    from diptych.data.executors.executor import executor
    from diptych.serve.embed_dataset import EmbeddingConfig, embed_dataset

    config = override(EmbeddingConfig(), [*(settings or []), f"of={of}"])
    assert isinstance(config, EmbeddingConfig)
    typer.echo(f"Vectors: {embed_dataset(data, model, name, executor(engine, jobs), config)}")
