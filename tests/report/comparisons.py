"""A comparison as JSON values, with a row of every kind."""

from typing import Any


def row(metric: str, verdict: str = "", **values: Any) -> dict[str, Any]:
    """A row with a test, or (verdict "") without one."""
    plain = {"task": "zero_shot", "data": "/data/<x>", "split": "val", "metric": metric, "a": 0.62, "b": 0.6}
    tested = {"low": 0.008, "high": 0.034, "p_value": 0.0004, "holm": 0.002, "family": "all", "words": "better by <2>"}
    untested = {"low": None, "high": None, "p_value": None, "holm": None, "family": "", "words": "no test: no mean"}
    more = tested if verdict else untested
    return {**plain, "difference": 0.021, "n": 1837, "verdict": verdict, **more, **values}


def comparison(**values: Any) -> dict[str, Any]:
    """A whole comparison."""
    rows = [
        row("acc_at_1", "better", family="headline"),
        row("acc_at_5", "indistinguishable", low=-0.01, high=0.02, holm=0.6),
        row("cider", "worse", a=1.0, b=1.5, difference=-0.5, low=-0.7, high=-0.3),
        row("ece"),
    ]
    whole = {"a": "new<>", "b": "old", "runs_a": 3, "runs_b": 1, "rows": rows, "notes": ["Holm: <how>."]}
    return {**whole, "not_compared": [{"task": "vqa", "why": "old was not evaluated on <it>"}], **values}
