"""``diptych curate``: which records of a packed dataset stay, and why the others go."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[str, typer.Argument(help="a packed dataset; without one: curations and their settings")] = "",
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE FILTER.FIELD=VALUE",
            help="a curation by name (datacomp:basic) or a .toml of filters; then settings of its filters "
            'by their names, as caption_length.min_words=3, and splits=["train","val"]',
        ),
    ] = None,
    *,
    recipe: Annotated[str, typer.Option(help="the curation; the same as its name behind the dataset")] = "",
    out: Annotated[Path | None, typer.Option(help="where the selection and the table of reasons go")] = None,
    engine: Annotated[str, typer.Option(help="pool: the processes of this machine; ray: a Ray cluster")] = "pool",
    jobs: Annotated[int, typer.Option(help="shards worked on at once (0: one a core)")] = 0,
) -> None:
    """Pass a dataset through filters: writes which records stay and a reason for every other; copies nothing.

    Alone it lists curations and filters, with --recipe alone that one's settings.
    """
    from diptych.core.errors import ConfigError
    from diptych.data.curate import curate
    from diptych.data.curations.curation import curation, curations, settings_of, with_settings
    from diptych.data.executors.executor import executor
    from diptych.data.filters.filter import filters

    given = list(words or [])
    if "=" in data and not Path(data).exists():  # no dataset, but a setting
        data, given = "", [data, *given]
    if not recipe and given and "=" not in given[0]:
        recipe = given.pop(0)
    if not data and not recipe:
        for name, function in sorted(curations().items()):
            typer.echo(f"{name:28}{(function.__doc__ or '').strip().splitlines()[0]}")
        typer.echo(f"\nFilters: {', '.join(filters())}\nSettings of one: diptych curate --recipe {name}")
        return
    if not recipe:
        raise ConfigError(
            f"a curation must be named behind the dataset, or as --recipe; there are {', '.join(sorted(curations()))}, "
            f"or a .toml. Example: diptych curate {data} house:default --out curated"
        )
    config = with_settings(curation(recipe), given)
    if not data:
        typer.echo("\n".join(settings_of(config)))
        return
    if out is None:
        raise ConfigError("the output must be named; got none. Name it: --out curated")
    typer.echo(str(curate(data, config, out, executor(engine, jobs))))
