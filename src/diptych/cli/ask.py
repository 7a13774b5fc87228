"""``diptych ask``: a question about a picture."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="a run, a checkpoint or a converted model, that writes")],
    image: Annotated[Path, typer.Argument(help="a picture")],
    questions: Annotated[list[str], typer.Argument(help='questions, such as "what colour is the circle?"')],
    *,
    answers: Annotated[Path | None, typer.Option(help="choose among these: a file with an answer a line")] = None,
    show: Annotated[int, typer.Option(help="with --answers: show so many, the most probable first")] = 3,
    max_tokens: Annotated[int, typer.Option(help="at most so many tokens an answer (0: as the model allows)")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print the answers as JSON")] = False,
) -> None:
    """Answer questions about a picture: in the model's own words, or the most probable answers of a list."""
    import json as j

    from rich.console import Console
    from rich.table import Table

    import diptych
    from diptych.evals.questions import read_answers

    model = diptych.load(run)
    rows: list[tuple[str, str, float | None]] = []
    if answers is None:
        rows = [
            (q, a, None) for q, a in zip(questions, model.ask(image, questions, max_tokens=max_tokens), strict=True)
        ]
    else:
        listed = read_answers(answers)
        best = model.answer_scores(image, questions, listed).topk(max(1, min(show, len(listed))), dim=1)
        for question, places, scores in zip(questions, best.indices.tolist(), best.values.tolist(), strict=True):
            rows += [(question, listed[p], s) for p, s in zip(places, scores, strict=True)]
    if json:
        names = ("question", "answer", "probability")
        typer.echo(j.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for head in ("question", "answer", *(["probability"] if answers else [])):
        table.add_column(head, overflow="fold", justify="right" if head == "probability" else "left")
    for question, answer, score in rows:
        table.add_row(question, answer or "(nothing)", *([] if score is None else [f"{score:.1%}"]))
    Console().print(table)
