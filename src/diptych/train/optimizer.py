"""AdamW with decay where decay belongs, rates of their own for parts, and a norm of the gradient that is taken once."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from diptych.core.distributed import all_sum
from diptych.core.errors import ConfigError, TrainingError
from diptych.objectives.objective import Objective
from diptych.train.freeze import named
from diptych.train.muon import Muon, matrix_names
from diptych.train.sharding import local

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm, _InstanceNorm)


def decayed_names(objective: Objective) -> tuple[list[str], list[str]]:
    """Names of the trainable parameters that are decayed, and of those that are not.

    Not decayed: fewer than two dimensions (gains, biases, temperature), anything in a norm or named bias, and what the
    model names in `decay_free` (position embeddings, class tokens).
    """
    free = {f"model.{name}" for name in objective.model.decay_free()}
    in_norms = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in objective.named_modules()
        if isinstance(module, _NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    known = dict(objective.named_parameters())
    unknown = sorted(free - known.keys())
    if unknown:
        raise TrainingError(
            f"{type(objective.model).__name__}.decay_free must name parameters of the model; got "
            f"{', '.join(n.removeprefix('model.') for n in unknown)}. Correct decay_free in the model or its towers."
        )
    decayed: list[str] = []
    undecayed: list[str] = []
    for name, p in known.items():
        if p.requires_grad:
            exempt = p.ndim < 2 or name.endswith("bias") or name in free or name in in_norms
            (undecayed if exempt else decayed).append(name)
    return decayed, undecayed


Rates = tuple[tuple[str, float], ...]
"""(what, factor), as in `train.rates`."""


def rate_factors(objective: Objective, rates: Rates) -> dict[str, float]:
    """The factor on the learning rate of each trainable parameter that has one, by its name in the objective.

    Of several entries of `rates` that name a parameter, the last counts. Raises ConfigError for one that names nothing
    that trains.
    """
    found: dict[str, float] = {}
    trained = {n for n, p in objective.model.named_parameters() if p.requires_grad}
    for word, factor in rates:
        names = [n for n in named(objective.model, word, "train.rates") if n in trained]
        if not names:
            raise ConfigError(
                f"train.rates must name what trains; got {word!r}, which is frozen. Leave it out, or let it train."
            )
        found |= dict.fromkeys((f"model.{n}" for n in names), factor)
    return found


def rates_fact(objective: Objective, rates: Rates) -> str:
    """What is said of `rates` before the first step; "" if there are none."""
    factors = list(rate_factors(objective, rates).values())
    counted = ", ".join(f"x {f:g} on {factors.count(f)} tensors" for f in dict.fromkeys(factors))
    return counted and f"{counted}; x 1 on the others"


def build_optimizer(
    objective: Objective,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    kind: str = "adamw",
    rates: Rates = (),
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: two groups (`decayed_names`) for each factor of `rates`, and twice as many
    where weights are sharded. A group's "lr_scale" is that factor: its rate, and with it its decay, are so much of the
    run's.

    `kind` "muon": the matrices between hidden widths (`muon.matrix_names`) are stepped by Muon, in their own groups.
    """
    known, factors = dict(objective.named_parameters()), rate_factors(objective, rates)
    if kind == "muon":
        return _build_muon(objective, lr, weight_decay, betas, eps, factors)
    groups = [
        {"params": part, "weight_decay": decay, "lr_scale": scale, "lr": lr * scale}
        for names, decay in zip(decayed_names(objective), (weight_decay, 0.0), strict=True)
        for scale, of_scale in _by_factor(names, factors)
        for part in _alike([known[n] for n in of_scale])
    ]
    if not groups:
        raise TrainingError("a run must have something to train; every parameter is frozen. Unfreeze a tower.")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def parameter_names(objective: Objective, optimizer: torch.optim.Optimizer) -> list[str]:
    """The name of each parameter in the order of the optimizer's numbering."""
    names = {id(p): n for n, p in objective.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all groups, each to its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def gradient_norms(objective: Objective) -> tuple[list[str], Tensor]:
    """The parameters that have a gradient, by name, and the norm of each, in float32 and on the device.

    `total_of` them is the norm of all together, and those that are not finite say which gradient is not.
    """
    grads = {n.removeprefix("model."): p.grad for n, p in objective.named_parameters() if p.grad is not None}
    norms = torch.stack(torch._foreach_norm([local(g) for g in grads.values()]))
    parts = [hasattr(g, "to_local") for g in grads.values()]
    if any(parts):  # a process sees only its part of a sharded gradient
        split = torch.tensor(parts, device=norms.device)
        norms = torch.where(split, all_sum(torch.where(split, norms.square(), 0)).sqrt(), norms)
    return list(grads), norms


def gradient_norm(objective: Objective) -> Tensor:
    """The norm of all gradients together, in float32 and on the device."""
    return total_of(gradient_norms(objective)[1])


def total_of(norms: Float[Tensor, " p"]) -> Float[Tensor, ""]:
    """The norm of everything together from the norms of its parts."""
    return torch.linalg.vector_norm(norms)


def clip_gradients(objective: Objective, max_norm: float, norm: Tensor) -> None:
    """Scale all gradients, whose norm is `norm`, down to `max_norm` if it is above (0: never)."""
    if max_norm > 0:
        share = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # on the device: no one waits to know whether it is 1
        torch._foreach_mul_([local(p.grad) for p in objective.parameters() if p.grad is not None], share)


def _build_muon(
    objective: Objective,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    factors: Mapping[str, float],
) -> Muon:
    known, matrices = dict(objective.named_parameters()), matrix_names(objective)
    if any(hasattr(p, "to_local") for p in known.values()):
        raise ConfigError(
            "train.optimizer must be adamw where train.sharding is fsdp; got muon, which needs whole matrices. "
            "Set train.sharding=ddp, or train.optimizer=adamw."
        )
    decayed, undecayed = decayed_names(objective)
    kinds: list[tuple[list[str], dict[str, Any]]] = [
        ([n for n in decayed if n in matrices], {"weight_decay": weight_decay, "muon": True}),
        ([n for n in decayed if n not in matrices], {"weight_decay": weight_decay}),
        (undecayed, {"weight_decay": 0.0}),
    ]
    groups = [
        {"params": [known[n] for n in of_scale], **settings, "lr_scale": scale, "lr": lr * scale}
        for names, settings in kinds
        for scale, of_scale in _by_factor(names, factors)
    ]
    if not groups:
        raise TrainingError("a run must have something to train; every parameter is frozen. Unfreeze a tower.")
    return Muon(groups, lr=lr, betas=betas, eps=eps)


def _by_factor(names: list[str], factors: Mapping[str, float]) -> list[tuple[float, list[str]]]:
    """The names that share a factor, those of each factor together, in the order in which factors first come."""
    found: dict[float, list[str]] = {}
    for name in names:
        found.setdefault(factors.get(name, 1.0), []).append(name)
    return list(found.items())


def _alike(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Sharded parameters and whole ones apart: one fused step takes only one kind."""
    kinds = [[p for p in parameters if hasattr(p, "to_local") == sharded] for sharded in (True, False)]
    return [kind for kind in kinds if kind]
