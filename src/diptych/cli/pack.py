"""``diptych pack``: any source of pairs into shards."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[str, typer.Argument(help="a folder, .csv, .tsv, .jsonl, .parquet, .tar, or a datasets folder")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="field=value of the source (encoding=cp1252, captions=folders) or packing (min_side=32)"),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="where to put the dataset")],
    val: Annotated[float, typer.Option(help="share held out for validation, chosen by image content")] = 0.02,
    resize: Annotated[int, typer.Option(help="shrink the long side to this once, at packing (0: keep)")] = 0,
    image_column: Annotated[str, typer.Option(help="column of the image (default: found)")] = "",
    caption_column: Annotated[str, typer.Option(help="column of the caption (default: found)")] = "",
    images_only: Annotated[bool, typer.Option("--images-only", help="keep images that have no caption")] = False,
    vocab_size: Annotated[int, typer.Option(help="tokens of the vocabulary trained on your captions")] = 8192,
    context_length: Annotated[int, typer.Option(help="tokens a caption may have, specials counted")] = 77,
    tokenizer: Annotated[str, typer.Option(help="'train' (default), 'clip', 'none', or a tokenizer.json")] = "train",
    max_pixels: Annotated[int, typer.Option(help="larger images are rejected before decoding")] = 50_000_000,
    records_per_shard: Annotated[int, typer.Option(help="records in each tar")] = 10_000,
    jobs: Annotated[int, typer.Option(help="processes (0: one a core)")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
) -> None:
    """Pack image-text pairs into shards; every record is kept or named in rejected.parquet."""
    from diptych.core.errors import ConfigError
    from diptych.data.pack import PackConfig, pack
    from diptych.data.sources.source import open_source

    asked = {k: v for k, v in {"image_column": image_column, "caption_column": caption_column}.items() if v}
    packing: dict[str, object] = {
        "val": val,
        "resize": resize,
        "vocab_size": vocab_size,
        "context_length": context_length,
        "tokenizer": tokenizer,
        "max_pixels": max_pixels,
        "records_per_shard": records_per_shard,
        "jobs": jobs,
        "overwrite": overwrite,
        "images_only": images_only,
    }
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"a setting must be field=value; got {setting!r}. Example: encoding=cp1252")
        (packing if name in PackConfig.model_fields else asked)[name] = value
    config = PackConfig(**packing)
    typer.echo(str(pack(open_source(source, **asked), out, config)))
