"""A codebook: vectors are replaced by the nearest of a few, and the few learn (van den Oord et al., 2017, 1711.00937).

What a step has seen is noted piece by piece, and taken in once the step is done, summed over ranks (`after_step`): so
the codes of a batch do not depend on how it was divided. Three things move the codebook besides its gradient:

- a moving average of the vectors that chose each code (appendix A.1 there; BEiT v2's for unit vectors, 2208.06366);
- k-means of the first batch's vectors, before which nothing is replaced (the codes of that one step mean nothing);
- codes that no vector has chosen for a while are put where vectors are, which are drawn by the number of the step.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.core.distributed import all_sum, broadcast_, gather, initialised, rank
from diptych.core.errors import ConfigError
from diptych.core.seeds import torch_generator

USED_WITHIN = 100
"""A code counts as used if a vector has chosen it within so many steps."""
USAGE_DECAY = 0.99
"""Of the average of what share of vectors chose each code, from which perplexity is."""
DISTANCES = 1 << 24
"""So many distances are held at once."""
EPS = 1e-5
"""Share of a vector that each code has for free, so that no average divides by zero (Laplace)."""


class VectorQuantizerConfig(Config):
    """Settings of a codebook.

    codes         how many
    width         of each
    distance      "l2"; "cosine": vectors and codes are of unit length (ViT-VQGAN, BEiT v2)
    update        "gradient" of the codebook's own loss; "ema": a moving average, with `decay`
    beta          weight of the commitment, which draws vectors to their codes
    legacy_beta   `beta` weighs the codes' own loss instead, as the first VQGAN had it by mistake
    kmeans        whether the codebook begins as k-means of the first batch's vectors
    revive_after  steps without use after which a code is put elsewhere; looked at as often; 0: never
    """

    codes: int = Field(default=8192, gt=1)
    width: int = Field(default=256, gt=0)
    distance: Literal["l2", "cosine"] = "l2"
    update: Literal["gradient", "ema"] = "gradient"
    decay: float = Field(default=0.99, ge=0, lt=1)
    beta: float = Field(default=0.25, ge=0)
    legacy_beta: bool = False
    kmeans: bool = False
    revive_after: int = Field(default=0, ge=0)


class Quantized(NamedTuple):
    """vectors: the codes' vectors, whose gradient goes to what was given (straight through); codes: which; loss: of
    each row, a mean over its places and numbers, already weighted."""

    vectors: Float[Tensor, "b n d"]
    codes: Int64[Tensor, "b n"]
    loss: Float[Tensor, " b"]


class CodeUse(nn.Module):
    """Which codes are chosen, and how often: noted piece by piece, taken in once a step, over all ranks.

    usage  a moving average of the share of choices that each code got; idle: steps since each was last chosen
    """

    usage: Tensor
    idle: Tensor
    _counts: Tensor | None

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("usage", torch.zeros(codes))
        self.register_buffer("idle", torch.full((codes,), USED_WITHIN))
        self.forget_noted()

    @torch.no_grad()
    def note(self, codes: Int64[Tensor, "*b"]) -> None:
        """Codes that were chosen."""
        if self._counts is None:
            self._counts = torch.zeros_like(self.usage)
        chosen = codes.flatten()
        self._counts.index_add_(0, chosen, self._counts.new_ones(len(chosen)))

    @torch.no_grad()
    def take(self) -> Float[Tensor, " k"] | None:
        """Take in what was noted, of all ranks, and return how often each code was chosen; None if nothing was."""
        if self._counts is None:
            return None
        counts = all_sum(self._counts)
        self.forget_noted()
        self.usage.lerp_(counts / counts.sum().clamp_min(1), 1 - USAGE_DECAY)
        self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))
        return counts

    def forget_noted(self) -> None:
        """As if nothing had been noted."""
        self._counts = None

    def use(self) -> Float[Tensor, ""]:
        """The share of codes that were chosen within the last `USED_WITHIN` steps."""
        return (self.idle < USED_WITHIN).float().mean()

    def perplexity(self) -> Float[Tensor, ""]:
        """exp of the entropy of how often each code is chosen: so many codes, were they all chosen alike."""
        return perplexity(self.usage)

    def health(self) -> dict[str, float]:
        """Both, for the log: "codebook_use" and "perplexity"."""
        return {"codebook_use": float(self.use()), "perplexity": float(self.perplexity())}


class VectorQuantizer(nn.Module):
    """The nearest of `codes` vectors. In float32 whatever the autocast around it. At first uniform within 1/codes, as
    taming-transformers has it, or normal and of unit length ("cosine").

    loss = ||sg(z) - e||^2 + beta ||z - sg(e)||^2 (eq. 3; with "ema" its second term alone; `legacy_beta` weighs the
    first). Under "cosine" z is the vector of unit length.
    """

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    steps: Tensor
    begun: Tensor

    def __init__(self, config: VectorQuantizerConfig) -> None:
        super().__init__()
        c = self.config = config
        first = torch.empty(c.codes, c.width).uniform_(-1 / c.codes, 1 / c.codes)
        if c.distance == "cosine":
            first = F.normalize(torch.randn(c.codes, c.width), dim=1)
        if c.update == "gradient":
            self.codebook = nn.Parameter(first)
        else:
            self.register_buffer("codebook", first)
            self.register_buffer("ema_count", torch.ones(c.codes))
            self.register_buffer("ema_sum", first.clone())
        self.seen = CodeUse(c.codes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("begun", torch.tensor(not c.kmeans))
        self._host: tuple[int, bool] | None = None  # steps and begun, which the host must know without asking a device
        self.forget_noted()

    def forward(self, z: Float[Tensor, "b n d"]) -> Quantized:
        """Replace each vector by its code."""
        with torch.autocast(z.device.type, enabled=False):
            z = self.scaled(z.float())
            codes = self.nearest(z)
            if self.training:
                self._note(z.detach(), codes)
                if not self.codebook.is_meta and not self._known()[1]:
                    return Quantized(z + 0 * self.codebook.sum(), codes, 0 * z.sum((1, 2)))
            e = self.vectors(codes)
            return Quantized(z + (e - z).detach(), codes, self._loss(z, e))

    def scaled(self, z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Of unit length, where the distance is "cosine"."""
        return F.normalize(z, dim=-1) if self.config.distance == "cosine" else z

    @torch.no_grad()
    def nearest(self, z: Float[Tensor, "*b d"]) -> Int64[Tensor, "*b"]:
        """The nearest code of each (scaled) vector; of equals the first."""
        return _nearest(z.detach().flatten(0, -2), self.scaled(self.codebook.detach())).view(z.shape[:-1])

    def vectors(self, codes: Int64[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """The vectors of codes."""
        return self.scaled(F.embedding(codes, self.codebook))

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in what the step has seen, of all ranks; nothing if it has seen nothing. A collective."""
        counts = self.seen.take()
        if counts is None:
            return
        assert self._sums is not None
        rows, sums = self._rows, all_sum(self._sums)
        self.forget_noted()
        step, begun = self._known()
        sound = sums.isfinite().all()
        self.steps += 1
        if not begun:
            begun = self._begin(rows)
        elif self.config.update == "ema":
            self._move(counts, sums, sound)
        self._host = (step + 1, begun)
        if begun and self._revives(step):
            self._revive(rows, step)

    def forget_noted(self) -> None:
        """As if the step had not begun: its pass did not count (a measurement, a step that was skipped)."""
        self.seen.forget_noted()
        self._sums: Tensor | None = None
        self._rows: list[Tensor] = []

    def _loss(self, z: Tensor, e: Tensor) -> Tensor:
        c = self.config
        commitment = (z - e.detach()).square().mean((1, 2))
        if c.update == "ema":
            return c.beta * commitment
        own = (z.detach() - e).square().mean((1, 2))
        return commitment + c.beta * own if c.legacy_beta else own + c.beta * commitment

    @torch.no_grad()
    def _note(self, z: Tensor, codes: Tensor) -> None:
        flat, chosen = z.flatten(0, 1), codes.flatten()
        self.seen.note(chosen)
        if self._sums is None:
            self._sums = torch.zeros_like(self.codebook)
        self._sums.index_add_(0, chosen, flat)
        if self.codebook.is_meta:
            return
        step, begun = self._known()
        if not begun or self._revives(step):
            self._rows.append(flat)

    def _known(self) -> tuple[int, bool]:
        if self._host is None:
            self._host = (int(self.steps), bool(self.begun))
        return self._host

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._host = None

    def _revives(self, step: int) -> bool:
        every = self.config.revive_after
        return every > 0 and (step + 1) % every == 0

    def _begin(self, rows: list[Tensor]) -> bool:
        """k-means of some of the step's vectors. Whether they were finite."""
        c = self.config
        chosen = _drawn(rows, 16 * c.codes, 0)
        if not chosen.isfinite().all():
            return False
        centres = kmeans(chosen, c.codes, cosine=c.distance == "cosine")
        broadcast_([centres])  # equal already where machines are equal
        self._put(torch.ones(c.codes, dtype=torch.bool, device=centres.device), centres)
        self.begun.fill_(True)
        return True

    def _move(self, counts: Tensor, sums: Tensor, sound: Tensor) -> None:
        c = self.config
        rate = 1 - c.decay
        if c.distance == "cosine":
            mean = torch.where(counts[:, None] > 0, F.normalize(sums, dim=1), self.codebook)
            moved = F.normalize(self.codebook.lerp(mean, rate), dim=1)
            self.codebook.copy_(torch.where(sound, moved, self.codebook))
            return
        self.ema_count.copy_(torch.where(sound, self.ema_count.lerp(counts, rate), self.ema_count))
        self.ema_sum.copy_(torch.where(sound, self.ema_sum.lerp(sums, rate), self.ema_sum))
        total = self.ema_count.sum()
        count = (self.ema_count + EPS) / (total + c.codes * EPS) * total
        self.codebook.copy_(self.ema_sum / count[:, None])

    def _revive(self, rows: list[Tensor], step: int) -> None:
        """Codes that were idle are put where vectors of this step are."""
        if isinstance(self.codebook, nn.Parameter) and hasattr(self.codebook, "full_tensor"):
            raise ConfigError(
                "train.sharding must be ddp where idle codes of a codebook that learns by gradient are revived; got "
                "fsdp. Set the quantizer's update=ema, or revive_after=0."
            )
        places = _drawn(rows, self.config.codes, step + 1)
        self._put((self.seen.idle >= self.config.revive_after) & places.isfinite().all(1), places)

    def _put(self, which: Tensor, places: Tensor) -> None:
        self.codebook.data.copy_(torch.where(which[:, None], places, self.codebook))
        if self.config.update == "ema":
            self.ema_count.masked_fill_(which, 1.0)
            self.ema_sum.copy_(torch.where(which[:, None], places, self.ema_sum))


@torch.no_grad()
def kmeans(x: Float[Tensor, "m d"], count: int, cosine: bool = False, rounds: int = 10) -> Float[Tensor, "k d"]:
    """Centres of `x` (Lloyd, 1982), from its first `count` rows on (again from the start where there are fewer), so `x`
    should be shuffled. A centre that is nearest to none stays. With `cosine` `x` and centres are of unit length."""
    centres = x[torch.arange(count, device=x.device) % len(x)].clone()
    for _ in range(rounds):
        own = _nearest(x, centres)
        sums = torch.zeros_like(centres).index_add_(0, own, x)
        counts = torch.zeros_like(centres[:, :1]).index_add_(0, own, torch.ones_like(x[:, :1]))
        means = F.normalize(sums, dim=1) if cosine else sums / counts.clamp_min(1)
        centres = torch.where(counts > 0, means, centres)
    return centres


def perplexity(counts: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """exp of the entropy of `counts`; 0 if all are 0."""
    share = counts / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)
    return torch.where(counts.sum() > 0, torch.special.entr(share).sum().exp(), 0)


def _nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """argmin over e of |x - e|^2 = |x|^2 - 2 x.e + |e|^2, the first of which is the same for all."""
    half = codebook.square().sum(1) / 2
    rows = max(1, DISTANCES // len(codebook))
    return torch.cat([(half - part @ codebook.T).argmin(1) for part in x.split(rows)])


def _drawn(rows: list[Tensor], count: int, step: int) -> Tensor:
    """`count` of the vectors of all ranks, in rank order one after another: drawn by `step`, in a drawn order, alike on
    all ranks; once each if there are enough, all of them if twice as many were wanted, else with repetition."""
    mine = torch.cat(rows)
    sizes = gather(torch.tensor([len(mine)], device=mine.device)).tolist() if initialised() else [len(mine)]
    total, start = sum(sizes), sum(sizes[: rank()])
    g = torch_generator("codebook", step)
    order = torch.randperm(total, generator=g)
    if total < count and step > 0:
        order = torch.cat([order, torch.randint(total, (count - total,), generator=g)])
    order = order[:count].to(mine.device) - start
    here = (order >= 0) & (order < len(mine))
    found = mine.new_zeros(len(order), mine.shape[1])
    found[here] = mine[order[here]]
    return all_sum(found)
