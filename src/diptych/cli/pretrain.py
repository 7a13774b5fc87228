"""``diptych pretrain``: one recipe, one dataset, one run."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="a name from `diptych recipes`, such as clip:tiny")],
    settings: Annotated[list[str] | None, typer.Argument(help="data=DIR, run=DIR and any field.sub=value")] = None,
    run: Annotated[Path | None, typer.Option(help="the run's folder (default: runs/<recipe>-<hash>)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the newest checkpoint in the run")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and the config, train nothing")] = False,
) -> None:
    """Pretrain a model; under torchrun, on as many processes as it starts."""
    from diptych.core import distributed
    from diptych.recipes.find import resolve

    device = distributed.init_from_environment()
    try:
        # torchrun takes --run for one of its own options, so the folder can be given as a setting too
        folders = [s.removeprefix("run=") for s in settings or [] if s.startswith("run=")]
        run = Path(folders[-1]) if folders else run
        base, config = resolve(
            recipe, [s for s in settings or [] if not s.startswith("run=")], resumed=run if resume else None
        )
        if dry_run:
            from diptych.train.plan import plan

            typer.echo(plan(config, base))
            return
        from diptych.train.run_folder import default_folder
        from diptych.train.stages import pretrain

        folder = pretrain(config, run or default_folder(config), resume=resume, device=device, base=base)
        if distributed.is_main():
            typer.echo(f"\nDone: {folder}\nReport:  diptych report {folder}")
    finally:
        distributed.shutdown()
