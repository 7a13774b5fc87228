"""``diptych collect``: pairs out of what people really have, packed."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    collector: Annotated[str, typer.Argument(help="what to read: a collector; without a path they are listed")] = "",
    path: Annotated[str, typer.Argument(help="the files to read")] = "",
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="of the collector, or of packing")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="where to put the dataset")] = Path("collected"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
) -> None:
    """Collect pairs with their origin and licence into a packed dataset; every record is kept or named."""
    from diptych.core.errors import ConfigError
    from diptych.data.collect.collector import collector as make
    from diptych.data.collect.collector import collectors, settings_of
    from diptych.data.pack import PackConfig, pack

    if not path:
        typer.echo("\n".join(collectors()))
        return
    packing: dict[str, object] = {"overwrite": overwrite}
    own: dict[str, str] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"a setting must be field=value; got {setting!r}. Example: rule=laion")
        (own if name in settings_of(collector) else packing)[name] = value
    typer.echo(str(pack(make(collector, path, **own), out, PackConfig(**packing))))
