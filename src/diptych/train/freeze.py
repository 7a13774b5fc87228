"""What trains and what does not: whole towers, parts, or parameters by name. Frozen is a contract: not a bit changes.

A frozen parameter gets no gradient, no moments and no decay. A module whose parameters are all frozen rests: it stays
in eval mode, so that its batch norms keep their statistics and its dropout is off, whatever else is trained (locked
image tuning, Zhai et al. 2022, arXiv:2111.07991). Gradients still flow through it to what lies before it (Frozen,
Tsimpoukelli et al. 2021, arXiv:2106.13884).
"""

import difflib
from fnmatch import fnmatchcase

import torch
from torch import nn

from diptych.checkpoints.adapters import is_adapter
from diptych.core.errors import ConfigError
from diptych.core.seeds import fold
from diptych.models.model import Model
from diptych.objectives.objective import Objective
from diptych.train.config import RunConfig
from diptych.train.lora import add_adapters

TOWERS = ("image", "text")
"""Words that stand for ``<word>_tower.*``."""


def objective_around(config: RunConfig, model: Model) -> Objective:
    """The objective of a run around its `model`, in training mode: adapters are in, and what is frozen is frozen.

    The adapters' first weights are a function of the seed.
    """
    t = config.train
    if t.lora.rank:
        torch.manual_seed(fold(t.seed, "lora"))
        add_adapters(model, t.lora, {n for word in t.freeze for n in named(model, word, "train.freeze")})
    objective = config.objective.build(model).to(model.pixel_mean.device)
    freeze(objective, t.freeze, t.only)
    return objective.train()


def freeze(objective: Objective, words: tuple[str, ...], only: tuple[str, ...] = ()) -> None:
    """Freeze all but what `only` names in the objective's model (empty: nothing yet), then what `words` name there.

    Both are "image" and "text" for the towers, names of parts, or patterns of parameter names. Where the model has
    adapters, all but these and `only` is frozen. Raises ConfigError for a word that names nothing, and where nothing
    but a temperature would be left to train.
    """
    model = objective.model
    known = dict(model.named_parameters())
    adapters = {n for n in known if is_adapter(n)}
    if only or adapters:
        trained = adapters.union(*(named(model, word, "train.only") for word in only))
        for name in known.keys() - trained:
            known[name].requires_grad_(False)
    for word in words:
        for name in named(model, word, "train.freeze"):
            known[name].requires_grad_(False)
    chosen = bool(words or only or adapters)
    if chosen and all(p.numel() == 1 for p in objective.parameters() if p.requires_grad):
        said = "; ".join(f"train.{k}={', '.join(v)}" for k, v in (("only", only), ("freeze", words)) if v)
        raise ConfigError(
            f"train.freeze and train.only must leave something to train; got {said}, which is all but the temperature. "
            "Freeze one tower, or a part of it."
        )
    objective.at_rest = tuple(f"model.{n}" for n in resting(model)) if chosen else ()


def named(model: Model, word: str, setting: str) -> list[str]:
    """Names of the parameters that `word` means: "image", "text", a part of the model, or a pattern of names.

    Raises ConfigError, which names the `setting`, where there are none.
    """
    part = f"{word}_tower" if word in TOWERS else word
    pattern = f"{part}.*" if isinstance(getattr(model, part, None), nn.Module) else part
    found = [n for n, _ in model.named_parameters() if fnmatchcase(n, pattern)]
    if not found:
        raise ConfigError(
            f"{setting} must name towers ({', '.join(TOWERS)}) or parameters of the model; got {word!r}, which names "
            f"none. {_did_you_mean(word, model)}"
        )
    return found


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
