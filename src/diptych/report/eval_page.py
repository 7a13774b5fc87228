"""The page of what a model's evals found: every result that a folder holds, with its figures."""

from html import escape
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.report.page import Page, note
from diptych.report.run_page import headlines, read_object, result_section, words

Json = dict[str, Any]


def eval_page(folder: str | Path) -> str:
    """The page of the results in FOLDER/evals. Raises DataError where there are none."""
    folder = Path(folder)
    paths = sorted((folder / "evals").glob("*.json"))
    found = [(_checkpoint(p), r) for p in paths if (r := read_object(p)) is not None]
    results = [r for _, r in found]
    if not results:
        raise DataError(f"{folder} must hold results in {folder / 'evals'}; it holds none. Run diptych eval first.")
    where = sorted({f"{r.get('data', '')} ({r.get('split', '')})" for r in results})
    page = Page(f"Evaluation of {folder.resolve().name}", escape(", ".join(where)))
    page.section("At a glance", headlines(results, [], 1))
    broken = [r for r in results if (r.get("settings", {}).get("broken_images") or {}).get("count")]
    for result in broken:
        lost = result["settings"]["broken_images"]
        names = ", ".join(list(lost.get("first", {}))[:3])
        page.section(
            "What could not be read",
            note(f"{words(result['task'])}: {lost['count']:,} images were left out, the first {names}."),
        )
    several = len(where) > 1
    for checkpoint, result in found:
        label = (result.get("settings") or {}).get("label")
        name = words(result["task"]) + (f" ({label})" if label else "") + checkpoint
        name += f": {Path(result.get('data', '')).name}, {result.get('split', '')}" if several else ""
        page.section(name, *result_section(result))
    return page.render()


def _checkpoint(path: Path) -> str:
    """Which checkpoint a result is of, by its file's name; "" for the run's own model."""
    number = path.stem.rpartition("-")[2]
    return f", checkpoint {int(number):,}" if len(number) == 12 and number.isdigit() else ""
