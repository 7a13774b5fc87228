"""Other people's weights in, ours out: exact both ways, tokenizer and preprocessing included.

The folder of this file is the list of formats: each module with `FORMAT`, `recognises`, `read` and `write` is one.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import diptych.checkpoints as room
from diptych.checkpoints.foreign import Foreign, check_end
from diptych.checkpoints.native import build, fill, load, save_pretrained
from diptych.core.errors import CheckpointError
from diptych.data.tokenize import Tokenizer
from diptych.models.pretrained import Pretrained


def formats() -> dict[str, list[ModuleType]]:
    """The modules of each foreign format, by the word that the command line has for it."""
    found: dict[str, list[ModuleType]] = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        if hasattr(module, "recognises"):
            found.setdefault(module.FORMAT, []).append(module)
    return found


def convert(format: str, path: str | Path, out: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write a foreign checkpoint as a model folder of ours at `out`, and return `out`.

    `tokenizer` stands in where the checkpoint brings none. Nothing is overwritten: `out` must be new or empty.
    Raises CheckpointError where `path` is not of that format,
    holds anything that would have to be executed, or has parts that our towers do not.
    """
    path, out = Path(path), _new(out)
    found = read(format, path)
    words = tokenizer or found.tokenizer
    if words is None:
        raise CheckpointError(
            f"{path} must bring its tokenizer (tokenizer.json, or vocab.json with merges.txt); it does not, and its "
            f"vocabulary of {found.vocab_size} is not CLIP's. Put the model's own tokenizer files beside the weights."
        )
    pretrained = assemble(found, words)
    save_pretrained(out, pretrained.model, words, extra={"converted_from": format})
    return out


def convert_to(format: str, run: str | Path, out: str | Path) -> Path:
    """Write a run, checkpoint or model folder of ours in a foreign format at `out`, and return `out`.

    Raises CheckpointError that names what the format has no place for.
    """
    out, problems = _new(out), []
    pretrained = load(run)
    for module in _modules(format):
        try:
            module.write(pretrained, out)
            return out
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("\n".join(problems))


def read(format: str, path: str | Path) -> Foreign:
    """A foreign checkpoint in our terms, not yet a model."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"a checkpoint must be a file or folder; got {path}, which is not there. Check the path.")
    for module in _modules(format):
        if module.recognises(path):
            return _read(module, path)
    others = [
        name for name, modules in formats().items() if name != format and any(m.recognises(path) for m in modules)
    ]
    hint = f"It looks like {' or '.join(others)}." if others else "No format knows it."
    raise CheckpointError(f"{path} must be a checkpoint of {format}; it is not. {hint}")


def assemble(found: Foreign, tokenizer: Tokenizer) -> Pretrained:
    """The model of a foreign checkpoint, ready to embed and score."""
    if tokenizer.vocab_size > found.vocab_size or tokenizer.context_length != found.config.context_length:
        raise CheckpointError(
            f"the tokenizer must have at most {found.vocab_size} tokens and a context of {found.config.context_length}"
            f"; got {tokenizer.vocab_size} and {tokenizer.context_length}. Bring the model's own tokenizer."
        )
    check_end(tokenizer, found.end)
    model = build(found.config, found.vocab_size)
    fill(model, found.state)
    return Pretrained(model, tokenizer)


def _new(out: str | Path) -> Path:
    """`out`, if nothing is lost by writing there: not the source, not a folder of other things."""
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise CheckpointError(
            f"the converted model must go to a new place; {out} holds something already. Name another, or remove it."
        )
    return out


def _read(module: ModuleType, path: Path) -> Foreign:
    try:
        found: Foreign = module.read(path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path} must have a whole configuration of {module.FORMAT}; reading it failed with "
            f"{type(error).__name__}: {error}. Fetch it again, or mend the file."
        ) from error
    return found


def _modules(format: str) -> list[ModuleType]:
    known = formats()
    if format not in known:
        raise CheckpointError(f"a format must be one of {', '.join(known)} (or to- and one of them); got {format!r}.")
    return known[format]
