"""The laws of the house that a machine can hold: mirrored tests, small rooms, plain names, empty package files."""

import ast
import builtins
import dis
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diptych"
MODULES = sorted(p for p in SOURCE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))
ROOMS = sorted({p.parent for p in MODULES})
FORBIDDEN = {"utils", "common", "helpers", "base", "misc", "manager", "engine", "lib"}


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_is_a_small_room_with_a_mirror(room):
    for path in MODULES:
        if path.parent == room:
            _check_room(path)


def _check_room(path):
    relative = path.relative_to(SOURCE)
    assert path.stem not in FORBIDDEN, relative
    mirror = ROOT / "tests" / relative.parent / f"test_{path.stem}.py"
    contract = mirror.parent / "test_contract.py"
    assert mirror.exists() or contract.exists(), f"{relative} must have a test; write {mirror.relative_to(ROOT)}"
    assert len(path.read_text().splitlines()) <= 400, relative
    for function in _functions(path):
        assert function.end_lineno - function.lineno < 80, f"{relative}: {function.name} is too long"
        arguments = function.args.args + function.args.kwonlyargs
        if relative.parts[0] != "cli":  # a verb's arguments are its options
            assert len(arguments) <= 10, f"{relative}: {function.name} has {len(arguments)} parameters"


def _globals_read(code: CodeType) -> set[str]:
    """The global names that a module's code reads, its functions' too."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(_globals_read(c) for c in code.co_consts if isinstance(c, CodeType)))


def _names_bound(tree: ast.Module) -> set[str]:
    """All names that something in a module binds, wherever: what is read and not among them is bound nowhere."""
    found = set(dir(builtins)) | {"__file__", "__name__", "__annotations__", "__module__", "__qualname__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler):
            found.add(node.name or "")
    return found


@pytest.mark.parametrize("folder", ["src", "benchmarks", pytest.param("tests", marks=pytest.mark.slow)])
def test_no_name_is_read_that_nothing_binds(folder):
    """Linter and type checker are told to overlook undefined names, which shapes in annotations look like to them."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        assert _globals_read(compile(tree, str(path), "exec")) - _names_bound(tree) == set(), path


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
