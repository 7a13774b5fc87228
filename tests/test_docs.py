"""What README and docs say is there: links, paths, symbols, commands, settings, and the code that they show."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
import torch
import typer.main

from diptych.cli.main import application
from diptych.core.config import override
from diptych.data.corpora.corpus import corpora, corpus
from diptych.data.pack import PackConfig
from diptych.data.sources.source import open_source
from diptych.evals.find import config_for, names
from diptych.recipes.find import recipe, recipes, resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TO_BE_WRITTEN = ("x.py", "hardest.py", "test_hardest.py")
"""Files that a page asks its reader to write."""
MADE_UP = ("objective=hardest", "objective.margin=0.3")
"""Settings of what a page asks its reader to write."""
OBJECTIVE_OF = dict.fromkeys(("objective.teacher", "objective.teacher_scale", "objective.weight"), "distillation")
"""Settings of another objective than the recipe's."""
SETTING = re.compile(r"\b(?:train|data|model|objective)\.[\w.]+=[^\s`;,\"')]+")


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path, *kinds: str) -> list[str]:
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S) if kind in kinds]


def _lines(page: Path) -> list[str]:
    """Every command line of a page's code blocks, continued ones in one piece."""
    return [line for b in _blocks(page, "sh", "") for line in b.replace("\\\n", " ").splitlines() if line.strip()]


def _commands(page: Path) -> list[list[str]]:
    """The words after `diptych` of each such line, without its comment."""
    found = []
    for line in _lines(page):
        words = shlex.split(line, comments=True)
        if words[:1] == ["diptych"]:
            found.append(words[1:])
        elif words[:1] == ["torchrun"]:
            assert words[words.index("-m") + 1] == "diptych", line
            assert "--run" not in words, "torchrun would take it for its own"
            found.append(words[words.index("-m") + 2 :])
    return found


def _is_synopsis(words: list[str]) -> bool:
    """Whether a command stands for many: ``get NAME [--out DIR]``, ``RUN``, ``a|b``."""
    return any(w in ("|", "...", "RECIPE") or w.startswith("[") or "|" in w or w in ("SOURCE", "RUN") for w in words)


def _verb(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` begin with, and the words after it."""
    verb: click.Command = typer.main.get_command(application())
    while hasattr(verb, "commands"):
        assert words[0] in verb.commands, f"there is no {words[0]!r}; there are {list(verb.commands)}"
        verb, words = verb.commands[words[0]], words[1:]
    return verb, words


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (page.parent / target).exists(), f"{target} is not there"
    for path in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|txt))`", text):
        written = path.rpartition("/")[2] in TO_BE_WRITTEN
        assert written or any((folder / path).exists() for folder in (ROOT, ROOT / "src/diptych")), (
            f"{path} is not there"
        )


def test_the_tour_names_symbols_that_are_there():
    stops = re.findall(r"\]\(([^)]+\.py)\)((?:,? ?`[\w.]+`)+)", (ROOT / "docs/tour.md").read_text())
    assert len(stops) >= 11
    for path, symbols in stops:
        tree = ast.parse((ROOT / "docs" / path).read_text())
        known = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        for symbol in re.findall(r"`([\w.]+)`", symbols):
            name, _, attribute = symbol.partition(".")
            assert name in known, f"{path} holds no {name}"
            members = {n.name for n in ast.walk(known[name]) if isinstance(n, ast.FunctionDef)}
            assert not attribute or attribute in members, f"{name} of {path} has no {attribute}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_commands_are_ones_that_we_have(page):
    inline = [shlex.split(c) for c in re.findall(r"`diptych ([^`]+)`", page.read_text())]
    for words in [*_commands(page), *inline]:
        assert words
        if words[:2] == ["corpus", "list"] and "|" in words:  # two verbs on one line
            words = ["corpus", *words[words.index("|") + 1 :]]
        if len(words) == 1 and words[0] == "corpus":
            continue
        verb, rest = _verb(words)
        known = {o for p in verb.params for o in (*p.opts, *p.secondary_opts)}
        for word in rest:
            option = word.strip("[]").partition("=")[0]
            assert not option.startswith("-") or option in known, f"{verb.name} has no {option}"
        if not _is_synopsis(words) and words not in inline:
            verb.make_context(str(verb.name), list(rest))  # raises where something is missing or too much


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_settings_are_ones_that_we_have(page, tmp_path):
    for text in SETTING.findall(page.read_text()):
        chosen = [f"objective={OBJECTIVE_OF[name]}"] if (name := text.partition("=")[0]) in OBJECTIVE_OF else []
        writes = text.startswith(("model.language", "model.connector"))
        chosen += [text] if text not in MADE_UP and not text.endswith("hf:FOLDER") else []
        override(recipe("git:tiny" if writes else "clip:tiny"), chosen)
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n")
    for words in _commands(page):
        settings = [w for w in words[1:] if re.match(r"[a-z_.]+=", w)]
        if words[0] == "pretrain" and words[1] in recipes():
            kept = [s for s in settings if s.partition("=")[0] not in ("data", "run", "init")]
            kept = [s for s in kept if s not in MADE_UP and not s.startswith("parts.")]
            resolve(words[1], ["data=x", *kept])
        if words[0] == "pack":
            asked = {n: v for n, _, v in (s.partition("=") for s in settings)}
            open_source(table, **{n: v for n, v in asked.items() if n.partition(".")[0] not in PackConfig.model_fields})
        if words[:2] == ["corpus", "get"] and words[2] in corpora():
            override(corpus(words[2]).config, settings)
        if words[0] == "eval":
            fields = {f for name in names() for f in type(config_for(name)).model_fields}
            assert {s.partition("=")[0] for s in settings} <= fields


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_python_that_is_shown_compiles(page):
    for block in _blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_objective_that_a_page_shows_trains():
    from tests.objectives.tiny_model import TinyConfig, tiny_batch

    (code,) = _blocks(ROOT / "docs/how-to/add-an-objective.md", "python")
    space: dict = {"__name__": "hardest"}
    exec(compile(code, "hardest.py", "exec"), space)
    objective = space["HardestConfig"](margin=0.3).build(TinyConfig().build(20))
    batch = tiny_batch(8)
    encoded = objective.encode(batch)
    losses = objective.loss(encoded, batch)
    scores, same = encoded["image"] @ encoded["text"].T, objective.same_pairs(batch).matrix(8)
    slow = []
    for matrix in (scores, scores.T):
        for i in range(8):
            others = [0.3 + matrix[i, j] - matrix[i, i] for j in range(8) if j != i and not same[i, j]]
            slow.append(max([torch.zeros(()), *others]))
    torch.testing.assert_close(losses.total, torch.stack(slow).mean())
    losses.total.backward()
    for name, p in objective.named_parameters():
        assert not p.requires_grad or p.grad is not None, name
    assert objective.health(encoded, batch)["chance_loss"] == pytest.approx(0.3)
