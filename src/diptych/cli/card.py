"""``diptych card``: one page about a set, to be looked through."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[Path, typer.Argument(help="a packed dataset")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="examples=6, metas=50000, clusters=12, side=128")
    ] = None,
    *,
    curation: Annotated[
        Path | None, typer.Option(help="what curate or combine wrote of it: what was dropped and what stays is shown")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the HTML page (default: DIR/card.html)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the values as JSON instead")] = False,
) -> None:
    """Describe a set: counts, captions, origins and licences, overlap, what each filter dropped, with pictures."""
    from diptych.core.config import override
    from diptych.core.files import write_atomic
    from diptych.data.card import CardConfig, describe
    from diptych.report.card_page import brief, card_page

    config = override(CardConfig(), settings or [])
    assert isinstance(config, CardConfig)
    values = describe(data, curation, config)
    if json:
        import json as j

        typer.echo(j.dumps(values, ensure_ascii=False))
        return
    page = out or data / "card.html"
    write_atomic(page, card_page(values))
    typer.echo(brief(values))
    typer.echo(f"Open {page}")
