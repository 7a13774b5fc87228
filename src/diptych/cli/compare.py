"""``diptych compare``: two runs, or two groups of runs, on the same items."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run_a: Annotated[Path, typer.Argument(help="a run, a checkpoint, or any folder with evals/*.json")],
    run_b: Annotated[Path, typer.Argument(help="what it is compared with")],
    *,
    a: Annotated[list[Path] | None, typer.Option("--a", help="another seed of RUN_A (repeat)")] = None,
    b: Annotated[list[Path] | None, typer.Option("--b", help="another seed of RUN_B (repeat)")] = None,
    out: Annotated[Path | None, typer.Option(help="write a page (HTML)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the comparison as JSON")] = False,
) -> None:
    """Test whether RUN_A is better than RUN_B, item by item, on all that both were evaluated on."""
    import json as j

    from diptych.core.config import to_dict
    from diptych.core.files import write_atomic
    from diptych.evals.comparison import compare_folders
    from diptych.report.compare_page import compare_page
    from diptych.report.compare_table import comparison_table

    found = compare_folders([run_a, *(a or [])], [run_b, *(b or [])])
    values = to_dict(found)
    if out is not None:
        write_atomic(out, compare_page(values))
    if json:
        typer.echo(j.dumps(values))
        return
    comparison_table(values)
    if out is not None:
        typer.echo(f"Open {out}")
