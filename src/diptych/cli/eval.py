"""``diptych eval``: measure a run, with intervals and chance levels."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model")],
    data: Annotated[Path, typer.Option(help="a packed dataset")],
    task: Annotated[list[str], typer.Option(help="retrieval, zero_shot, ... (repeat for several)")],
    split: Annotated[str, typer.Option(help="which split (default: val, else test, else train)")] = "",
    classes: Annotated[str, typer.Option(help="zero_shot: a file with a class name a line")] = "",
    templates: Annotated[str, typer.Option(help="zero_shot: clip, simple, plain, or a file with a prompt a line")] = "",
    max_items: Annotated[int, typer.Option(help="at most so many images (0: all)")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print the results as JSON")] = False,
) -> None:
    """Evaluate a model on held-out data and keep the result in the run."""
    import json as j

    import diptych
    from diptych.core.config import to_dict
    from diptych.data.dataset import Dataset
    from diptych.evals.find import config_for, save
    from diptych.report.terminal import estimates_table

    model = diptych.load(run)
    dataset = Dataset.open(data)
    for name in task:
        options = {"classes": classes, "templates": templates} if name == "zero_shot" else {}
        config = config_for(
            name, data=str(data), split=split, max_items=max_items, **{k: v for k, v in options.items() if v}
        )
        result = config.build().run(model, dataset.split(dataset.held_out(split)))
        path = save(result, run)
        if json:
            typer.echo(j.dumps({k: to_dict(v) for k, v in result.metrics.items()}))
        else:
            typer.echo(f"\n{result.task} on {result.data} ({result.split})")
            estimates_table(result.metrics)
            typer.echo(f"kept in {path}")
