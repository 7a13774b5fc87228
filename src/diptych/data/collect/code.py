"""Code: functions with their docstrings as pairs of texts, and pictures with the code that drew them.

    diptych collect code src/ --out data/functions
    diptych collect code src/ functions=false drawings=1000 charts=1000 --out data/drawn

Files of Python are parsed and never run. The pictures' programs are made here (`data/programs.py`), so that what is
drawn is known to the last number.
"""

import ast
import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from diptych.core.errors import ConfigError
from diptych.core.record import Record, Segment
from diptych.data.collect.collector import Collector, CollectorConfig
from diptych.data.drawing import MAX_RESOLUTION, draw
from diptych.data.files_below import files_below
from diptych.data.programs import Program, chart_program, drawing_program
from diptych.data.record_files import printable
from diptych.data.sources.source import Reject
from diptych.data.svg import render_svg

MAX_FILE_BYTES = 2 << 20
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]{2,80})")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class CodeConfig(CollectorConfig):
    """`path` is a folder of .py files, or one. A licence is what a file's SPDX line says, else `licence`.

    docstring       "summary": its first paragraph; "whole"
    drawings        how many pictures of the house's drawing language are made;  charts: how many of SVG
    resolution      their side in pixels;  seed: of their programs
    max_characters  of a function's code;  min_words: of its docstring
    """

    functions: bool = True
    docstring: Literal["summary", "whole"] = "summary"
    min_words: Annotated[int, Field(ge=1)] = 3
    max_characters: Annotated[int, Field(ge=1)] = 10_000
    drawings: Annotated[int, Field(ge=0)] = 0
    charts: Annotated[int, Field(ge=0)] = 0
    resolution: Annotated[int, Field(ge=8, le=MAX_RESOLUTION)] = 224
    seed: int = 0

    def build(self) -> "Code":
        """The collector."""
        return Code(self)


class _Refused(NamedTuple):
    reason: str
    message: str


class Code(Collector):
    """Functions in the order of the files and of their lines, keyed FILE/NAME; then drawings, then charts.

    A function is two texts, of the roles "docstring" and "code" (which lacks the docstring). A picture's caption is its
    code; meta `says` is what is on it in plain words, `language` what the code is in.
    """

    config: CodeConfig

    def __init__(self, config: CodeConfig) -> None:
        super().__init__(config)
        self.root = Path(config.path)
        self.images_only = False
        if not config.functions and not config.drawings + config.charts:
            raise ConfigError("code must be collected from something; got functions=false alone. Set drawings=1000.")

    def records(self) -> Iterator[Record | Reject]:
        """Functions and pictures. Raises DataError where nothing is there, or charts are asked for without resvg."""
        if self.config.functions:
            for found in files_below(self.root, {".py"}):
                if isinstance(found, Reject):
                    yield found
                else:
                    yield from self._file(printable(found[0]), found[1])
        for n in range(self.config.drawings):
            program = drawing_program(self.config.seed, n)
            buffer = io.BytesIO()
            draw(program.code, self.config.resolution).save(buffer, "PNG")
            yield self._picture("drawing", n, buffer.getvalue(), program)
        for n in range(self.config.charts):
            program = chart_program(self.config.seed, n)
            yield self._picture("chart", n, render_svg(program.code.encode(), self.config.resolution), program)

    def where(self, key: str) -> str:
        """The function in the file."""
        return str(self.root / key) if self.root.is_dir() else key

    def _picture(self, rule: str, n: int, data: bytes, program: Program) -> Record:
        meta = {"language": program.language, "says": program.says}
        record = Record.pair(f"{rule}s/{n:09d}", data, "png", (program.code,), meta=meta)
        return self.from_here(record, "generated", f"seed {self.config.seed}, {rule} {n}", rule)

    def _file(self, key: str, path: Path) -> Iterator[Record | Reject]:
        where = str(path)
        try:
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                message = f"a file must be an ordinary one of at most {MAX_FILE_BYTES:,} bytes; {path.name} is not."
                yield Reject(key, message, "too_many_bytes", where)
                return
            text = path.read_bytes().decode("utf-8-sig")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of strange escapes in strangers' strings
                tree = ast.parse(text)
        except OSError as error:
            yield Reject(key, f"a file must be readable; got {error.strerror}.", "unreadable", where)
            return
        except UnicodeDecodeError:
            yield Reject(key, "a file of Python must be UTF-8; this one is not.", "bad_text", where)
            return
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = getattr(error, "msg", None) or type(error).__name__
            yield Reject(key, f"a file must be Python 3; got {said}.", "not_python", where)
            return
        lines = re.split(r"\r\n|\r|\n", text)  # as ast counts them
        spdx = _SPDX.search(text[:5000])
        taken = dict[str, int]()
        for name, node in _functions(tree):
            taken[name] = taken.get(name, 0) + 1
            own = f"{key}/{name}" if taken[name] == 1 else f"{key}/{name}-{taken[name]}"
            pair = self._pair(node, lines)
            if isinstance(pair, _Refused):
                yield Reject(own, pair.message, pair.reason, f"{where} line {node.lineno}")
                continue
            words, code = pair
            segments = (Segment("text", (words,), "txt", "docstring"), Segment("text", (code,), "txt", "code"))
            record = Record(own, segments, {"language": "python"})
            yield self.from_here(record, where, f"line {node.lineno}", "function", spdx[1].strip() if spdx else "")

    def _pair(self, node: _Function, lines: list[str]) -> "tuple[str, str] | _Refused":
        """(docstring, code without it), or why not."""
        said = ast.get_docstring(node)
        if not said:
            return _Refused("no_docstring", "a function must have a docstring; this one has none.")
        words = re.split(r"\n\s*\n", said)[0] if self.config.docstring == "summary" else said
        words = " ".join(words.split()) if self.config.docstring == "summary" else words
        if len(words.split()) < self.config.min_words:
            least = self.config.min_words
            return _Refused("too_few_words", f"a docstring must have at least {least} words; got {words[:60]!r}.")
        if len(node.body) < 2:
            return _Refused("no_body", "a function must do something; this one has a docstring alone.")
        quote, after = node.body[0], node.body[1]
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        begin, end = quote.lineno - 1, quote.end_lineno or quote.lineno
        if lines[begin][: quote.col_offset].strip() or after.lineno <= end:
            return _Refused("docstring_in_line", "a docstring must stand on lines of its own; this one does not.")
        code = textwrap.dedent("\n".join([*lines[first:begin], *lines[end : node.end_lineno]])).strip("\n")
        if len(code) > self.config.max_characters:
            most = self.config.max_characters
            return _Refused("text_too_long", f"a function must have at most {most:,} characters; got {len(code):,}.")
        return words, code


def _functions(tree: ast.Module) -> Iterator[tuple[str, _Function]]:
    """(Class.name, node) of every function, in the order of their lines; without recursion, however deep they lie."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        name = prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}.{node.name}" if prefix else node.name
            if not isinstance(node, ast.ClassDef):
                yield name, node
        waiting += [(name, child) for child in reversed(list(ast.iter_child_nodes(node)))]
