"""What does not train: whole towers or parameters by name. Frozen is a contract: not a bit of it changes.

A frozen parameter gets no gradient, no moments and no decay. A module whose parameters are all frozen rests: it stays
in eval mode, so that its batch norms keep their statistics and its dropout is off, whatever else is trained (locked
image tuning, Zhai et al. 2022, arXiv:2111.07991).
"""

import difflib
from fnmatch import fnmatchcase

from torch import nn

from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.objective import Objective

TOWERS = ("image", "text")
"""Words that stand for ``<word>_tower.*``."""


def freeze(objective: Objective, words: tuple[str, ...]) -> None:
    """Freeze what `words` name in the objective's model: "image", "text", or patterns of parameter names.

    Raises ConfigError for a word that names nothing, and where nothing but a temperature would be left to train.
    """
    model = objective.model
    known = dict(model.named_parameters())
    for word in words:
        pattern = f"{word}_tower.*" if word in TOWERS else word
        found = [n for n in known if fnmatchcase(n, pattern)]
        if not found:
            raise ConfigError(
                f"train.freeze must name towers ({', '.join(TOWERS)}) or parameters of the model; got {word!r}, which "
                f"names none. {_did_you_mean(word, model)}"
            )
        for name in found:
            known[name].requires_grad_(False)
    if words and all(p.numel() == 1 for p in objective.parameters() if p.requires_grad):
        raise ConfigError(
            f"train.freeze must leave something to train; got {', '.join(words)}, which is all but the temperature. "
            "Freeze one tower, or a part of it."
        )
    objective.at_rest = tuple(f"model.{n}" for n in resting(model)) if words else ()


def resting(model: nn.Module) -> list[str]:
    """Names of the largest modules inside `model` that have parameters, all of them frozen."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{above}.") for above in found)
        if name and not inside and is_frozen(module):
            found.append(name)
    return found


def is_frozen(module: nn.Module) -> bool:
    """Whether `module` has parameters, and none of them trains."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def frozen_tower(model: nn.Module, kind: str) -> bool:
    """Whether all of the model's "image" or "text" tower is frozen."""
    tower = getattr(model, f"{kind}_tower", None)
    return isinstance(tower, nn.Module) and is_frozen(tower)


def frozen_state(model: nn.Module) -> set[str]:
    """Names of the tensors of `model.state_dict()` that never change: frozen parameters, and buffers of what rests."""
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    rests = resting(model)
    return frozen | {n for n, _ in model.named_buffers() if any(n.startswith(f"{name}.") for name in rests)}


def frozen_fact(model: nn.Module) -> str:
    """What is frozen and how much of the model that is, for the lines before the first step; "" if nothing is."""
    frozen = {n: p.numel() for n, p in model.named_parameters() if not p.requires_grad}
    modules = resting(model)
    loose = [n for n in frozen if not any(n.startswith(f"{m}.") for m in modules)]
    names = modules + loose
    if not names:
        return ""
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    held, total = sum(frozen.values()), sum(p.numel() for p in model.parameters())
    return f"{some}, {_millions(held)} of {_millions(total)} parameters"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count < 1e7 else f"{count / 1e6:,.0f} M"


def _did_you_mean(word: str, model: Model) -> str:
    names = [n for n, _ in model.named_parameters()]
    parts = sorted({f"{n.rpartition('.')[0]}.*" for n in names if "." in n} | {f"{n.split('.')[0]}.*" for n in names})
    close = difflib.get_close_matches(word, [*TOWERS, *parts, *names], n=1, cutoff=0.4)
    tops = sorted({n.split(".")[0] for n in names})
    return f"Did you mean {close[0]!r}?" if close else f"Its parameters begin with: {', '.join(tops)}."
