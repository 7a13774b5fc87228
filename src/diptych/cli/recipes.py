"""``diptych recipes``: what can be pretrained."""

import typer


def command() -> None:
    """Name the recipes, with what each is."""
    from rich.console import Console
    from rich.table import Table

    from diptych.recipes.find import recipes

    table = Table(box=None, pad_edge=False)
    table.add_column("recipe")
    table.add_column("what it is", overflow="fold")
    for name, function in recipes().items():
        table.add_row(name, (function.__doc__ or "").strip().splitlines()[0])
    Console().print(table)
    typer.echo("\nSee one whole: diptych pretrain RECIPE data=DIR --dry-run")
