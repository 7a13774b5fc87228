"""The command ``diptych``: one file a verb in this folder; each calls the library and prints what came of it."""

import errno
import importlib
import os
import pkgutil
import sys

import typer

import diptych.cli
from diptych.core.errors import DiptychError

OUTSIDE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EBUSY),
    }
)
"""What is wrong outside of the program, which a traceback would not explain."""
ORDER = (
    "corpus",
    "collect",
    "pack",
    "inspect",
    "score",
    "embed",
    "curate",
    "combine",
    "card",
    "diff",
    "recaption",
    "recipes",
    "pretrain",
    "eval",
    "compare",
    "report",
    "search",
    "caption",
    "ask",
    "paint",
    "study",
    "convert",
)


def application() -> typer.Typer:
    """The whole command, built from the files here: `command` is a verb, `app` a verb with verbs of its own."""
    app = typer.Typer(
        name="diptych",
        help="Pretrain vision-language models on your own paired data.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    names = [m.name for m in pkgutil.iter_modules(diptych.cli.__path__) if m.name != "main"]
    for name in sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        module = importlib.import_module(f"diptych.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name.replace("_", "-"))(module.command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error of ours is printed in one piece, without a traceback, and exits with 1."""
    try:
        application()(args=arguments)
    except DiptychError as error:
        typer.secho(f"diptych: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone (`diptych ... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        sys.exit(0)
    except OSError as error:
        if error.errno not in OUTSIDE:
            raise
        where = f": {error.filename}" if error.filename else ""
        typer.secho(
            f"diptych: a file could not be read or written; got {error.strerror}{where}. "
            "Check the path, its permissions and the room on its disk.",
            fg=typer.colors.RED,
            err=True,
        )
        sys.exit(1)
