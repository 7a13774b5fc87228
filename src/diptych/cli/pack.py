"""``diptych pack``: any source of pairs into shards."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[str, typer.Argument(help="a folder, .csv, .tsv, .jsonl, .parquet, .tar, or a datasets folder")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE",
            help="of the source (image_column=photo, encoding=cp1252, captions=folders) or of packing (vocab_size=8192,"
            " context_length=77, tokenizer=clip, images_only=true, min_side=32, max_pixels=50000000, jobs=4,"
            " faces.blur=boxes)",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="where to put the dataset")],
    val: Annotated[float, typer.Option(help="share held out for validation, chosen by image content")] = 0.02,
    resize: Annotated[int, typer.Option(help="shrink the long side to this once, at packing (0: keep)")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
) -> None:
    """Pack image-text pairs into shards; every record is kept or named in rejected.parquet."""
    from diptych.core.config import override
    from diptych.core.errors import ConfigError
    from diptych.data.pack import PackConfig, pack
    from diptych.data.sources.source import open_source

    packing, asked = list[str](), dict[str, str]()
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"a setting must be field=value; got {setting!r}. Example: encoding=cp1252")
        if name.partition(".")[0] in PackConfig.model_fields:
            packing.append(setting)
        else:
            asked[name] = value
    config = override(PackConfig(val=val, resize=resize, overwrite=overwrite), packing)
    assert isinstance(config, PackConfig)
    typer.echo(str(pack(open_source(source, **asked), out, config)))
