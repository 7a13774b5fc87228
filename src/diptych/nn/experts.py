"""Mixture of experts in place of a block's MLP: each token goes through a few of many, and all stay in use.

A router gives every token a probability of each expert (softmax, in float32); the `per_token` best are asked, and what
they say is added up, weighted by their probabilities over those of the chosen (Shazeer et al., arXiv:1701.06538); with
one a token by the probability itself (Fedus et al., arXiv:2101.03961, eq. 2), so that the router learns in any case.

Load is balanced without a loss (Wang et al., arXiv:2408.15664, algorithm 1; DeepSeek-V3, arXiv:2412.19437): a bias on
the choice alone, which no gradient reaches, is raised a little after each step for experts that got too few tokens,
and lowered for those that got too many.

What is counted: tokens of training passes with a gradient. A pass without one (the first of a cached batch) counts
nothing; a checkpointed block counts its tokens twice, all of them, so that no share and no sign changes. How many
tokens each expert gets is asked of the device, once a layer, so that a compiled block falls into two halves.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diptych.core.distributed import all_sum

STEP = 1e-3
"""By how much the bias moves after a step (the paper's best), on the scale of probabilities."""

MEMORY = 0.9
"""How much of what is known of the load stays when a step is added."""


class Experts(nn.Module):
    """`count` MLPs, made by `build`, and the router before them.

    bias   what is added to each expert's probability when experts are chosen
    use    the share of tokens that each gets, over the last ten steps or so
    """

    bias: Tensor
    use: Tensor

    def __init__(self, width: int, count: int, per_token: int, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.per_token = per_token
        self.router = nn.Linear(width, count, bias=False)
        self.experts = nn.ModuleList(build() for _ in range(count))
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("use", torch.full((count,), 1 / count))
        self.noted: Tensor | None = None  # no buffer: DDP would give all ranks those of the first

    def forward(self, x: Float[Tensor, "*s d"]) -> Float[Tensor, "*s d"]:
        """Tokens sorted by expert, one pass an expert; one that no token goes to passes none, so that every
        weight has a gradient."""
        flat = x.reshape(-1, x.shape[-1])
        chosen, gates = self.route(flat)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)) if not x.is_meta else None
        if counts is not None and self.training and torch.is_grad_enabled():  # here: a block that is computed again
            self.noted = counts if self.noted is None else self.noted + counts  # stops where the rest is known
        token = order // self.per_token
        parts = flat.index_select(0, token).split(self._sizes(counts, len(order)))
        said = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        weighted = said.float() * gates.flatten().index_select(0, order)[:, None]
        out = torch.zeros(len(flat), said.shape[-1], device=x.device).index_add(0, token, weighted)
        return out.to(said.dtype).view(x.shape)

    def route(self, x: Float[Tensor, "n d"]) -> tuple[Int64[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The experts of each token, and what each of them weighs."""
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            p = F.linear(x.float(), self.router.weight.float()).softmax(-1)
            chosen = (p.detach() + self.bias.float()).topk(self.per_token, dim=-1).indices
            gates = p.gather(1, chosen)
            return chosen, gates / gates.sum(1, keepdim=True) if self.per_token > 1 else gates

    def forget_noted(self) -> None:
        """As if the step had not begun: its pass did not count (a measurement, a step that was skipped)."""
        self.noted = None

    def _sizes(self, counts: Tensor | None, rows: int) -> list[int]:
        if counts is not None:
            return [int(n) for n in counts.tolist()]
        count = len(self.experts)  # on no device, where only shapes are asked for: alike
        return [rows // count + (i < rows % count) for i in range(count)]


@torch.no_grad()
def balance_experts(module: nn.Module) -> None:
    """After a step: move the bias of every mixture in `module` against its load, summed over pieces and ranks.

    Nothing where nothing was noted, so that twice is once. A collective where there are mixtures.
    """
    layers = experts_of(module)
    if not layers:
        return
    noted = [m.bias.new_zeros(len(m.bias)) if m.noted is None else m.noted.to(m.bias.dtype) for m in layers]
    loads = all_sum(torch.cat(noted)).split([len(n) for n in noted])
    for layer, load in zip(layers, loads, strict=True):
        seen = load.sum() > 0
        layer.bias += STEP * torch.sign(load.mean() - load)  # of nothing, nothing
        share = load / load.sum().clamp_min(1)
        layer.use.copy_(torch.where(seen, MEMORY * layer.use + (1 - MEMORY) * share, layer.use))
        layer.forget_noted()


def experts_of(module: nn.Module) -> list[Experts]:
    """Every mixture inside `module`."""
    return [m for m in module.modules() if isinstance(m, Experts)]


@torch.no_grad()
def expert_use(layers: Sequence[Experts]) -> dict[str, float]:
    """For the log, of all layers the worst: what the busiest and the idlest expert get, as multiples of an even share
    ("experts_busiest", "experts_idlest"), and the entropy of the shares, of 1 ("experts_entropy"); {} without any."""
    if not layers:
        return {}
    even = [layer.use.float() * len(layer.use) / layer.use.sum() for layer in layers]
    entropy = [
        -(e / len(e) * (e / len(e)).clamp_min(1e-12).log()).sum() / torch.tensor(float(len(e))).log() for e in even
    ]
    return {
        "experts_busiest": max(float(e.max()) for e in even),
        "experts_idlest": min(float(e.min()) for e in even),
        "experts_entropy": min(float(h) for h in entropy),
    }
