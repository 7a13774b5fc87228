"""The multiway transformer of BEiT-3 (Wang et al., 2022, arXiv:2208.10442, section 2.1): experts by modality.

Image tokens and text tokens stand in one row and see each other; what else happens to them is their own modality's. In
the paper attention is shared and only the MLPs (with the norm before them) are apart; in the top layers the tokens of a
pair go through a third MLP, of vision and language together. The weights that its authors published are "decoupled":
projections and all norms are apart too, only the attention operation is shared, and there is no third expert.
"""

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.nn.attention import Attention, attend
from diptych.nn.block import BlockConfig, build_mlp, drop_path
from diptych.nn.mask import MaskPlan
from diptych.nn.mlp import MLP
from diptych.nn.norm import build_norm


class MultiwayConfig(BlockConfig):
    """Settings of a multiway transformer; the block's are among them.

    attention_experts  "separate": each modality has its own projections and norm (the published weights); "shared":
                       one attention for both (the paper)
    fusion_layers      so many of the last layers have an MLP of vision and language, for pairs (the paper: 3)
    """

    width: int = Field(default=768, gt=0)
    heads: int = Field(default=12, gt=0)
    norm_position: Literal["pre", "post", "sub", "swin"] = "sub"
    attention_experts: Literal["separate", "shared"] = "separate"
    fusion_layers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _can_be_several(self) -> "MultiwayConfig":
        if self.norm_position not in ("pre", "sub"):
            raise ValueError(
                f"MultiwayConfig.norm_position must be 'pre' or 'sub', for norms are the experts'; got "
                f"{self.norm_position!r}. BEiT-3 has 'sub'."
            )
        if self.cross_attention != "none" or self.kv_heads or self.layer_scale:
            raise ValueError(
                "MultiwayConfig must be without cross_attention, kv_heads and layer_scale, which no expert has; got "
                f"{self.cross_attention!r}, {self.kv_heads} and {self.layer_scale}. Leave them out."
            )
        if self.fusion_layers > self.depth:
            raise ValueError(
                f"MultiwayConfig.fusion_layers must be at most depth; got {self.fusion_layers} of {self.depth}. "
                "BEiT-3 has 3 of 12 and more."
            )
        return self


class Attending(nn.Module):
    """Norm and attention: the half of an expert that may be shared."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        c = config
        inner, qk = c.norm if c.norm_position == "sub" else None, c.norm if c.qk_norm else None
        self.norm_1 = build_norm(c.norm, c.width, c.norm_eps)
        self.attention = Attention(c.width, c.heads, c.bias, qk, inner, c.norm_eps)

    def forward(self, x: Float[Tensor, "b s d"], mask: MaskPlan | None = None) -> Float[Tensor, "b s d"]:
        """What attention adds to each token of one modality, or of all where there is one expert."""
        return self.attention(self.norm_1(x), mask)

    def projected(self, x: Float[Tensor, "b s d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (b, n, s, k) each."""
        a, y = self.attention, self.norm_1(x)
        q, k, v = (p(y).unflatten(-1, (a.heads, -1)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        if a.q_norm is not None and a.k_norm is not None:
            q, k = a.q_norm(q).to(v.dtype), a.k_norm(k).to(v.dtype)
        return q, k, v

    def out(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """From what was attended to, all heads side by side, to what is added."""
        a = self.attention
        return a.out_proj(x if a.inner_norm is None else a.inner_norm(x))


class Widening(nn.Module):
    """Norm and MLP: the half of an expert that is always apart."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        c = config
        self.norm_2 = build_norm(c.norm, c.width, c.norm_eps)
        self.mlp = build_mlp(c)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """What the MLP adds to each token."""
        return self.mlp(self.norm_2(x))


class MultiwayBlock(nn.Module):
    """One layer: `attends` of each modality, or of both; `widens` of each modality, and of pairs where it is fused.

    `rate` is this block's own drop-path chance; a pair's image and text are kept or left out together.
    """

    recomputable: ClassVar[bool] = True
    """See nn/checkpointing.py."""

    def __init__(self, config: MultiwayConfig, rate: float = 0.0, fused: bool = False) -> None:
        super().__init__()
        self.rate = rate
        apart = config.attention_experts == "separate"
        self.attends = nn.ModuleDict({k: Attending(config) for k in (("image", "text") if apart else ("both",))})
        self.widens = nn.ModuleDict({k: Widening(config) for k in ("image", "text", *(("pair",) if fused else ()))})

    def forward(self, x: Float[Tensor, "b s d"], images: int, mask: MaskPlan | None = None) -> Float[Tensor, "b s d"]:
        """The first `images` tokens of each row are an image's, the others a text's; there may be none of either."""
        x = x + drop_path(self._attended(x, images, mask), self.rate, self.training)
        return x + drop_path(self._widened(x, images), self.rate, self.training)

    def _attended(self, x: Tensor, images: int, mask: MaskPlan | None) -> Tensor:
        if "both" in self.attends:
            return self.attends["both"](x, mask)
        if images in (0, x.shape[1]):
            return self.attends["image" if images else "text"](x, mask)
        experts: list[Attending] = [self.attends["image"], self.attends["text"]]  # type: ignore[list-item]
        parts = [e.projected(p) for e, p in zip(experts, (x[:, :images], x[:, images:]), strict=True)]
        q, k, v = (torch.cat(both, dim=2) for both in zip(*parts, strict=True))
        found = attend(q, k, v, mask).transpose(1, 2).flatten(2)  # (b, s, d)
        outs = [e.out(p) for e, p in zip(experts, (found[:, :images], found[:, images:]), strict=True)]
        return torch.cat(outs, dim=1)

    def _widened(self, x: Tensor, images: int) -> Tensor:
        if images in (0, x.shape[1]):
            return self.widens["image" if images else "text"](x)
        if "pair" in self.widens:
            return self.widens["pair"](x)
        return torch.cat([self.widens["image"](x[:, :images]), self.widens["text"](x[:, images:])], dim=1)


def build_multiway(config: MultiwayConfig) -> nn.ModuleList:
    """`config.depth` blocks, whose drop-path chance grows linearly to `config.drop_path`, the last ones fused."""
    last, first_fused = max(config.depth - 1, 1), config.depth - config.fusion_layers
    return nn.ModuleList(
        MultiwayBlock(config, config.drop_path * i / last, i >= first_fused) for i in range(config.depth)
    )


def init_magneto(blocks: Iterable[nn.Module], depth: int) -> None:
    """First weights of Magneto (Wang et al., 2022, arXiv:2210.06423, figure 2) for an encoder with Sub-LN: Xavier
    normal, with gain sqrt(ln(2 depth)) for values, what is written to the residual stream and the MLPs, and gain 1 for
    queries and keys; biases zero."""
    gain = math.sqrt(math.log(2 * max(depth, 1)))
    for module in (m for b in blocks for m in b.modules()):
        scaled: list[nn.Linear] = []
        if isinstance(module, Attention):
            scaled = [module.v_proj, module.out_proj]
            for linear in (module.q_proj, module.k_proj):
                nn.init.xavier_normal_(linear.weight)
        if isinstance(module, MLP):
            scaled = [m for m in (module.fc_1, module.fc_gate, module.fc_2) if m is not None]
        for linear in scaled:
            nn.init.xavier_normal_(linear.weight, gain=gain)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
