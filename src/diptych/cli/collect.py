"""``diptych collect``: pairs out of what people really have."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer


def command(
    collector: Annotated[
        str, typer.Argument(help="what to read: urls (a table of links), or a collector; alone: they are listed")
    ] = "",
    path: Annotated[str, typer.Argument(help="the file or folder to read")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE", help="of the collector, of packing, or of the download (web.timeout_s=5)"
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="where to put the dataset (urls: the shards, to be packed)")] = Path(
        "collected"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a dataset that is there")] = False,
    engine: Annotated[str, typer.Option(help="of urls: pool, the processes of this machine; or ray")] = "pool",
    jobs: Annotated[int, typer.Option(help="of urls: shards worked on at once (0: one a core)")] = 0,
) -> None:
    """Collect pairs with their origin and licence; every record is kept or named with its reason."""
    from diptych.core.config import override
    from diptych.core.errors import ConfigError
    from diptych.core.folder import did_you_mean
    from diptych.data.collect.collector import NothingToPack, collectors, settings_of
    from diptych.data.collect.collector import collector as make
    from diptych.data.executors.executor import executor
    from diptych.data.pack import PackConfig, pack
    from diptych.data.web.download import DownloadConfig, download

    if not path:
        typer.echo("\n".join(sorted(["urls", *collectors()])))
        return
    if collector == "urls":
        config = override(DownloadConfig(), settings or [])
        assert isinstance(config, DownloadConfig)
        typer.echo(str(download(Path(path), out, executor(engine, jobs), config)))
        return
    own, packing = list[str](), list[str]()
    known = settings_of(collector)
    for setting in settings or []:
        field = setting.partition("=")[0].partition(".")[0]
        if field not in known | set(PackConfig.model_fields):
            raise ConfigError(
                f"a setting must be FIELD=VALUE, a field of {collector} or of packing; got {setting!r}. "
                + did_you_mean(field, sorted(known | set(PackConfig.model_fields)))
            )
        (own if field in known else packing).append(setting)
    source, how = make(collector, path, own), override(PackConfig(overwrite=overwrite), packing)
    assert isinstance(how, PackConfig)
    with suppress(NothingToPack):  # it is said below
        typer.echo(str(pack(source, out, how)))
    if source.next_step():
        typer.echo(source.next_step())
