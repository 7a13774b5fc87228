"""Weights and settings of one part of a model from the same part of another, trained or converted before.

A part is a module of the model by its attribute's name (`language`, `image_tower`); its settings are the field of the
model's config that has that name, less ``_tower``. What has to be there is there, or an error says what is missing.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.checkpoints.native import load, resize_positions
from diptych.core.errors import CheckpointError, ConfigError
from diptych.core.progress import say
from diptych.models.model import Model, ModelConfig

READOUT: tuple[str, ...] = (
    *("projection.*", "map_pool.*", "attention_pool.*", "norm_post.*", "norm_final.*", "head_bias", "lm_head.*"),
    *("blocks.*.text_mlp.*", "blocks.*.norm_text.*"),
)
"""What only a pooled or projected output reads, or (of a Q-Former) a text: a part that has no such output does not take
them, and that is said."""
TOKENIZED = ("language", "text_tower")
"""Parts that read tokens: their tokenizer comes with them, the first one's if there are two."""


def divided(reference: str, part: str) -> tuple[str, str]:
    """(folder, name of the part there) of ``FOLDER`` or ``FOLDER#name``; "" of ``FOLDER#``, the whole model there."""
    folder, mark, name = reference.partition("#")
    return folder, name or ("" if mark else part)


def field_of(config: ModelConfig, part: str) -> str:
    """The field of a model's settings that describes its part `part`."""
    known = type(config).model_fields
    for name in (part, part.removesuffix("_tower")):
        if name in known:
            return name
    raise ConfigError(
        f"a part must be a module of the model with settings of its own; got {part!r} of a "
        f"{type(config).__name__.removesuffix('Config')}. Its settings are: {', '.join(known)}."
    )


def with_part(config: ModelConfig, part: str, theirs: ModelConfig, name: str) -> ModelConfig:
    """`config` with the settings that the part `name` has in `theirs`; an image tower's pixel format and the width of
    its projection come along."""
    values = {field_of(config, part): settings_of(theirs, name)}
    if part == "image_tower":
        shared = [n for n in ("image_format", "embed_dim") if n in type(config).model_fields and hasattr(theirs, n)]
        values |= {n: getattr(theirs, n) for n in shared}
    return config.replace(**values)


def settings_of(config: ModelConfig, name: str) -> Any:
    """The settings of the part `name`; with "" those of the whole model."""
    return getattr(config, field_of(config, name)) if name else config


def fill_part(model: Model, part: str, reference: str) -> None:
    """Put the weights of a part of another model into `model`, and say what was left out.

    `reference`: ``FOLDER``, or ``FOLDER#name`` where the part has another name there, or ``FOLDER#`` where that whole
    model is the part (an image codec). Position embeddings of an image
    tower are interpolated to another resolution.
    """
    folder, name = divided(reference, part)
    mine = getattr(model, part, None)
    if not isinstance(mine, nn.Module):
        tops = ", ".join(n for n, _ in model.named_children())
        raise ConfigError(f"parts must name modules of the model; got {part!r}. It has: {tops}.")
    given = load(Path(folder)).model
    inside = f"{name}." if name else ""
    theirs = {n.removeprefix(inside): t for n, t in given.state_dict().items() if n.startswith(inside)}
    if not theirs:
        tops = ", ".join(n for n, _ in given.named_children())
        raise ConfigError(
            f"parts.{part} must be a folder whose model has a part {name!r}; the one in {folder} has: {tops}. Name it: "
            f"parts.{part}={folder}#NAME."
        )
    if part == "image_tower":
        whole = resize_positions({f"{part}.{n}": t for n, t in theirs.items()}, model)
        theirs = {n.removeprefix(f"{part}."): t for n, t in whole.items()}
    own = mine.state_dict()
    fresh = {n for n in own if n not in theirs and any(fnmatchcase(n, p) for p in getattr(mine, "begins_fresh", ()))}
    state, left = fitted({n: t for n, t in own.items() if n not in fresh}, theirs, f"parts.{part} from {folder}")
    mine.load_state_dict(state | {n: own[n] for n in fresh})
    without = f"; left out, since nothing here reads it: {_some(left)}" if left else ""
    without += f"; begun anew: {_some(sorted(fresh))}" if fresh else ""
    say(f"  {part} begins as {name or 'the model'} of {folder}: {len(state)} tensors{without}.")


@torch.no_grad()
def fitted(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], list[str]]:
    """(the tensors of `theirs` that `mine` has, names of those that it has not), which must be `READOUT`.

    Raises CheckpointError that names what is missing, unknown or of another shape.
    """
    for n in mine.keys() & theirs.keys():  # a shorter context has the first places of a longer one
        if n == "position_embed" and mine[n].shape[1:] == theirs[n].shape[1:] and len(mine[n]) < len(theirs[n]):
            theirs = {**theirs, n: theirs[n][: len(mine[n])]}
    missing = sorted(mine.keys() - theirs.keys())
    left = sorted(theirs.keys() - mine.keys())
    unknown = [n for n in left if not any(fnmatchcase(n, p) for p in READOUT)]
    wrong = [n for n in mine.keys() & theirs.keys() if mine[n].shape != theirs[n].shape]
    if missing or unknown or wrong:
        said = [f"missing: {_some(missing)}"] if missing else []
        said += [f"not known here: {_some(unknown)}"] if unknown else []
        shapes = [f"{n} is {tuple(theirs[n].shape)} there and {tuple(mine[n].shape)} here" for n in sorted(wrong)]
        said += [_some(shapes)] if wrong else []
        raise CheckpointError(
            f"{what} must hold every tensor of that part, in its shape; {'; '.join(said)}. The part's settings must be "
            "those that it was trained with (width, depth, context, vocabulary): leave them out to take them over."
        )
    return {n: theirs[n] for n in mine}, left


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
