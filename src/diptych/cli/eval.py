"""``diptych eval``: measure a run, with intervals and chance levels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diptych.evals.eval import EvalConfig


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="field=value of the evals, such as label_field=artist or captions=all")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="a packed dataset")],
    task: Annotated[list[str], typer.Option(help="retrieval, zero_shot, ... (repeat for several)")],
    split: Annotated[str, typer.Option(help="which split (default: val, else test, else train)")] = "",
    classes: Annotated[str, typer.Option(help="zero_shot: a file with a class name a line")] = "",
    templates: Annotated[str, typer.Option(help="zero_shot: clip, simple, plain, or a file with a prompt a line")] = "",
    max_items: Annotated[int, typer.Option(help="at most so many images (0: all)")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print the results as JSON, a line a task")] = False,
) -> None:
    """Evaluate a model on held-out data and keep the result in the run."""
    import json as j

    import diptych
    from diptych.core.config import to_dict
    from diptych.data.dataset import Dataset
    from diptych.evals.find import save
    from diptych.report.terminal import estimates_table

    given = {"classes": classes, "templates": templates}
    options = [*(settings or []), *(f"{name}={j.dumps(value)}" for name, value in given.items() if value)]
    configs = _configs(task, {"data": str(data), "split": split, "max_items": max_items}, options)
    model = diptych.load(run)
    dataset = Dataset.open(data)
    for config in configs:
        result = config.build().run(model, dataset.split(dataset.held_out(split)))
        path = save(result, run)
        if json:
            typer.echo(j.dumps({k: to_dict(v) for k, v in result.metrics.items()}))
        else:
            typer.echo(f"\n{result.task} on {result.data} ({result.split})")
            estimates_table(result.metrics)
            typer.echo(f"kept in {path}")


def _configs(tasks: list[str], common: dict[str, object], options: list[str]) -> "list[EvalConfig]":
    """The settings of each task; an option is for those tasks that have its field, and an error if none has."""
    from diptych.core.config import override
    from diptych.core.errors import ConfigError
    from diptych.evals.eval import EvalConfig
    from diptych.evals.find import config_for

    plain = [config_for(name, **common) for name in dict.fromkeys(tasks)]
    for option in options:
        name, equals, _ = option.partition("=")
        if equals and not any(name in type(config).model_fields for config in plain):
            known = dict.fromkeys(f for config in plain for f in type(config).model_fields if f not in common)
            raise ConfigError(
                f"a setting must be one that {', '.join(dict.fromkeys(tasks))} has; got {name!r}, which would have no "
                f"effect. There are: {', '.join(known)}."
            )
    configs = []
    for config in plain:
        mine = [o for o in options if "=" not in o or o.partition("=")[0] in type(config).model_fields]
        configs.append(override(config, mine))
    assert all(isinstance(config, EvalConfig) for config in configs)
    return configs  # type: ignore[return-value]  # checked above
