"""The laws of the house that a machine can hold: mirrored tests, small rooms, plain names, empty package files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diptych"
MODULES = sorted(p for p in SOURCE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))
FORBIDDEN = {"utils", "common", "helpers", "base", "misc", "manager", "engine", "lib"}


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_is_a_small_room_with_a_mirror(path):
    relative = path.relative_to(SOURCE)
    assert path.stem not in FORBIDDEN
    mirror = ROOT / "tests" / relative.parent / f"test_{path.stem}.py"
    contract = mirror.parent / "test_contract.py"
    assert mirror.exists() or contract.exists(), f"{relative} must have a test; write {mirror.relative_to(ROOT)}"
    assert len(path.read_text().splitlines()) <= 400
    for function in _functions(path):
        assert function.end_lineno - function.lineno < 80, f"{function.name} is too long"
        arguments = function.args.args + function.args.kwonlyargs
        if relative.parts[0] != "cli":  # a verb's arguments are its options
            assert len(arguments) <= 10, f"{function.name} has {len(arguments)} parameters"


def test_package_files_are_empty():
    for path in SOURCE.rglob("__init__.py"):
        if path != SOURCE / "__init__.py":
            assert path.read_text() == "", path


def test_every_public_function_and_class_says_what_it_is():
    silent = []
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(SOURCE)}: {node.name}")
    assert silent == []


def test_nothing_names_a_machine():
    for path in [*SOURCE.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "LOG.md"]:
        if path.exists():
            text = path.read_text()
            assert "/" + "work/" not in text, path
            assert "/root/" not in text, path
