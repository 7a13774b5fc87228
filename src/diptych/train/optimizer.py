"""AdamW with decay where decay belongs, and a norm of the gradient that is taken once."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from diptych.core.distributed import all_sum
from diptych.core.errors import TrainingError
from diptych.objectives.objective import Objective
from diptych.train.sharding import is_sharded, local, total_norm

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


def build_optimizer(
    objective: Objective, lr: float, weight_decay: float, betas: tuple[float, float], eps: float
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in two groups (`decayed_names`); three where weights are sharded."""
    known = dict(objective.named_parameters())
    groups = [
        {"params": part, "weight_decay": decay}
        for names, decay in zip(decayed_names(objective), (weight_decay, 0.0), strict=True)
        for part in _alike([known[n] for n in names])
    ]
    if not groups:
        raise TrainingError("a run must have something to train; every parameter is frozen. Unfreeze a tower.")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def parameter_names(objective: Objective, optimizer: torch.optim.Optimizer) -> list[str]:
    """The name of each parameter in the order of the optimizer's numbering."""
    names = {id(p): n for n, p in objective.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def gradient_norm(objective: Objective) -> Tensor:
    """The norm of all gradients together, in float32 and on the device."""
    return total_norm([p.grad for p in objective.parameters() if p.grad is not None])


def clip_gradients(objective: Objective, max_norm: float, norm: Tensor) -> None:
    """Scale all gradients, whose norm is `norm`, down to `max_norm` if it is above (0: never)."""
    if max_norm > 0:
        share = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # on the device: no one waits to know whether it is 1
        torch._foreach_mul_([local(p.grad) for p in objective.parameters() if p.grad is not None], share)


def nonfinite_names(objective: Objective, most: int = 3) -> list[str]:
    """Names of parameters whose gradient holds a NaN or an infinity (a few of them)."""
    grads = {n.removeprefix("model."): p.grad for n, p in objective.named_parameters() if p.grad is not None}
    if not grads:
        return []
    bad = torch.stack([(~torch.isfinite(local(g))).any() for g in grads.values()]).float()
    if is_sharded(objective):
        bad = all_sum(bad)  # a process sees only its part
    return [n for n, b in zip(grads, bad.tolist(), strict=True) if b][:most]


def _alike(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Sharded parameters and whole ones apart: one fused step takes only one kind."""
    kinds = [[p for p in parameters if hasattr(p, "to_local") == sharded] for sharded in (True, False)]
    return [kind for kind in kinds if kind]
