"""``diptych eval``: measure models, with intervals and chance levels."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diptych.evals.suite import LeftOut, Outcome, Plan
    from diptych.models.pretrained import Pretrained

SETTING = re.compile(r"[a-z_][a-z0-9_.]*=")


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FIELD=VALUE",
            help="runs, checkpoints, converted folders, openclip:PATH, hf:PATH; and settings of the evals, such as "
            "label_field=artist, templates=simple or max_items=500",
        ),
    ],
    data: Annotated[list[str] | None, typer.Option(help="a packed dataset, or data as it is (repeat)")] = None,
    suite: Annotated[str, typer.Option(help="quick, full, or a TOML file of tasks")] = "",
    task: Annotated[list[str] | None, typer.Option(help="retrieval, zero_shot, ... (repeat for several)")] = None,
    split: Annotated[str, typer.Option(help="which split (default: val, else test, else train)")] = "",
    out: Annotated[Path | None, typer.Option(help="where results go (default: the run; of others: evaluated/)")] = None,
    again: Annotated[bool, typer.Option("--again", help="compute also what is known already")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the results as JSON, a line a task")] = False,
) -> None:
    """Evaluate models on held-out data, keep the results, and compare the models where there are several.

    Under torchrun (torchrun --nproc-per-node 4 -m diptych eval ...) the tasks are shared among the processes.
    """
    from diptych.checkpoints.open_model import open_model
    from diptych.core import distributed
    from diptych.core.errors import ConfigError
    from diptych.evals import suite as suites

    options = [m for m in models if SETTING.match(m)]
    words = [m for m in models if not SETTING.match(m)]
    if not words:
        raise ConfigError("eval must be given a model; got settings only. Name a run, or openclip:PATH or hf:PATH.")
    if bool(task) == bool(suite):
        raise ConfigError("eval must be given --task NAME (one or several) or --suite quick|full|FILE, one of the two.")
    if task:
        suites.settings_of(task, options)  # a wrong word is said before anything is loaded
    device = distributed.init_from_environment()
    try:
        homes = _homes(words, out)
        for name, home in zip(words, homes, strict=True):
            model = open_model(name, device)
            if task:
                found = suites.named(task, data or _required(), split, options)
            else:
                found = suites.plan(model, suite, data or [], split, options)
            _evaluate(model, name, home, found, again, json, keep_going=suite in suites.SUITES)
        if distributed.is_main() and not json:
            _finish(homes)
    finally:
        distributed.shutdown()


def _evaluate(
    model: "Pretrained", name: str, home: Path, found: "Plan", again: bool, json: bool, keep_going: bool
) -> None:
    from diptych.core.distributed import gather_objects, is_main
    from diptych.core.progress import say
    from diptych.evals import suite as suites

    if is_main() and not json:
        say(f"{name}: {len(found.tasks)} task(s), results in {home / 'evals'}")
    outcomes = []
    for outcome in suites.run(model, found.tasks, home, again, keep_going):
        outcomes.append(outcome)
        _print(outcome, json)
    failed = gather_objects([(o.task.name, o.task.config.data, o.error) for o in outcomes if o.error])
    if is_main() and not json:
        _print_left_out(found.left_out, [one for part in failed for one in part])
        memory = model.memory
        if memory is not None and (memory.computed or memory.found):
            made = " and ".join(f"{memory.computed[w]:,} {w}s" for w in ("image", "text"))
            known = "; the other vectors were known" if memory.found.total() > memory.computed.total() else ""
            say(f"embedded {made}{known}.")


def _print(outcome: "Outcome", json: bool) -> None:
    import json as j

    from diptych.core.config import to_dict
    from diptych.report.terminal import estimates_table

    result = outcome.result
    if result is None:
        return
    if json:
        typer.echo(j.dumps({k: to_dict(v) for k, v in result.metrics.items()}))
        return
    typer.echo(f"\n{outcome.task.name} on {result.data} ({result.split})")
    estimates_table(result.metrics)
    typer.echo(f"{'known already, kept' if outcome.known else 'kept'} in {outcome.path}")


def _print_left_out(left_out: "list[LeftOut]", failed: list[tuple[str, str, str]]) -> None:
    for name, data, why in failed:
        typer.secho(f"\n{name} on {data} could not be run: {why}", fg=typer.colors.YELLOW)
    if left_out:
        typer.echo("\nLeft out, since they do not suit:")
        for one in left_out:
            typer.echo(f"  {one.name} on {one.data}: {one.why}")


def _homes(words: list[str], out: Path | None) -> list[Path]:
    """The folder of each model's results: its own for a run, OUT for one model, else OUT/<name>."""
    from diptych.checkpoints.open_model import parse
    from diptych.core.errors import ConfigError

    homes = []
    for word in words:
        named = parse(word)
        if out is not None:
            homes.append(out if len(words) == 1 else out / named.name)
        else:
            homes.append(Path("evaluated") / named.name if named.format else named.path)
    twice = [str(h) for h in homes if homes.count(h) > 1]
    if twice:
        raise ConfigError(f"each model must have a folder of its own; got {twice[0]} twice. Name the models once.")
    return homes


def _finish(homes: list[Path]) -> None:
    """The page of each model, and each later model beside the first, item by item."""
    from diptych.core.config import to_dict
    from diptych.core.files import write_atomic
    from diptych.evals.comparison import compare_folders
    from diptych.evals.find import run_folder
    from diptych.report.compare_table import comparison_table
    from diptych.report.eval_page import eval_page

    for home in homes:
        folder, _ = run_folder(home)
        page = folder / "evals" / "index.html"
        write_atomic(page, eval_page(folder))
        typer.echo(f"\nOpen {page}")
    for home in homes[1:]:
        typer.echo("")
        comparison_table(to_dict(compare_folders([homes[0]], [home])))


def _required() -> list[str]:
    from diptych.core.errors import ConfigError

    raise ConfigError("eval must be given data; got none. Name a dataset with --data DIR.")
