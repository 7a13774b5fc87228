"""How another project's tensors become ours and ours become theirs: one list of rules, read in both directions.

A rule only renames, transposes, reshapes, splits or joins, so that a model converted there and back is equal
to the bit.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.core.errors import CheckpointError


@dataclass(frozen=True)
class Rule:
    """Our tensors `ours` are their tensor `theirs`: joined along the first dimension if there are several of ours.

    `kind`: "same" leaves numbers where they are; "transposed" swaps the two dimensions (``x @ w`` against ``Linear``).
    `shape`: the shape of theirs where it differs from ours by dimensions of one only (a probe, a scalar).
    """

    ours: tuple[str, ...]
    theirs: str
    kind: str = "same"
    shape: tuple[int, ...] | None = None

    def to_ours(self, tensor: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Our tensors from theirs, shaped as `shapes` says."""
        if self.kind == "transposed":
            tensor = _matrix(tensor, self.theirs).T
        parts = tensor.chunk(len(self.ours)) if len(self.ours) > 1 else (tensor,)
        if len(parts) != len(self.ours):
            raise CheckpointError(f"{self.theirs} must split into {len(self.ours)}; got shape {tuple(tensor.shape)}.")
        found = {}
        for name, part in zip(self.ours, parts, strict=True):
            shape = shapes.get(name, part.shape)
            if self.shape is not None and part.numel() == shape.numel():
                part = part.reshape(shape)
            found[name] = part.clone(memory_format=torch.contiguous_format)
        return found

    def to_theirs(self, state: Mapping[str, Tensor]) -> Tensor:
        """Their tensor from ours."""
        parts = [state[name] for name in self.ours]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.kind == "transposed":
            tensor = _matrix(tensor, self.ours[0]).T
        if self.shape is not None:
            tensor = tensor.reshape(self.shape)
        return tensor.detach().clone(memory_format=torch.contiguous_format)


def same(pairs: Iterable[tuple[str, str]], suffixes: tuple[str, ...] = ("weight", "bias")) -> list[Rule]:
    """Rules for modules that differ in their name only: (ours, theirs) of each, for each suffix."""
    return [Rule((f"{a}.{s}",), f"{b}.{s}") for a, b in pairs for s in suffixes]


def joined(ours: str, theirs: Callable[[str], str], names: str = "qkv") -> list[Rule]:
    """Rules for projections that they keep in one matrix: `theirs` gives its name for "weight" and "bias"."""
    return [Rule(tuple(f"{ours}.{n}_proj.{s}" for n in names), theirs(s)) for s in ("weight", "bias")]


def to_ours(
    rules: list[Rule], theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], ignore: str = r"$^"
) -> dict[str, Tensor]:
    """Our state from theirs, in fp32 (integers as they are), every tensor of both sides accounted for.

    `shapes` are those that our model has; `ignore` is a pattern of names of theirs that hold no weights.
    """
    skip = re.compile(ignore)
    known = {rule.theirs for rule in rules}
    found = {name for name in theirs if name in known or not skip.search(name)}
    check_names(found, known, "the checkpoint")
    state: dict[str, Tensor] = {}
    for rule in rules:
        tensor = theirs[rule.theirs]
        state |= rule.to_ours(tensor.float() if tensor.is_floating_point() else tensor, shapes)
    check_shapes(state, shapes)
    return state


def to_theirs(rules: list[Rule], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state from ours, every tensor of ours used once."""
    used = [name for rule in rules for name in rule.ours]
    check_names(set(ours), set(used), "the model")
    return {rule.theirs: rule.to_theirs(ours) for rule in rules}


def check_names(found: set[str], wanted: set[str], what: str) -> None:
    """Raise a CheckpointError that names what is missing and what is not known, if the two sets differ."""
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    if not missing and not unknown:
        return
    lines = [f"{what} must hold exactly the tensors that its configuration calls for."]
    if missing:
        lines.append(f"Missing ({len(missing)}): {_listed(missing)}.")
    if unknown:
        lines.append(f"Not known ({len(unknown)}): {_listed(unknown)}.")
        close = difflib.get_close_matches(unknown[0], missing or sorted(wanted), n=1)
        if close:
            lines.append(f"Did you mean {close[0]!r} by {unknown[0]!r}?")
    raise CheckpointError(" ".join(lines))


def check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raise a CheckpointError that shows both shapes, if a tensor does not fit the model."""
    check_names(set(state), set(shapes), "the checkpoint")
    wrong = [name for name, tensor in state.items() if tensor.shape != shapes[name]]
    if wrong:
        shown = "; ".join(f"{n}: file {tuple(state[n].shape)}, model {tuple(shapes[n])}" for n in wrong[:4])
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise CheckpointError(
            f"each tensor must have the shape that the configuration calls for; got {shown}{more}. "
            "The weights and the configuration are not of the same model."
        )


def _matrix(tensor: Tensor, name: str) -> Tensor:
    if tensor.ndim != 2:
        raise CheckpointError(f"{name} must be a matrix; got shape {tuple(tensor.shape)}.")
    return tensor


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
