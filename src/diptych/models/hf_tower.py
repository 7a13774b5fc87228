"""Image and text encoders in a local folder of transformers (ViT, CLIP, SigLIP, DINOv2, BERT, ...) as towers here.

`image_format` must be what the folder's encoder was trained with: it is the model's, not the tower's.
"""

import inspect
import json
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from diptych.core.errors import ConfigError
from diptych.models.hf_folder import HFFolderConfig, HFPart, blocks_of
from diptych.models.tower import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from diptych.nn.pool import Projection, build_projection, masked_mean, take_first

Pooling = Literal["pooler", "cls", "mean"]
TINY_IMAGE = json.dumps(
    {
        "model_type": "vit",
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
    }
)
TINY_TEXT = json.dumps(
    {
        "model_type": "bert",
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
)


class HFImageTowerConfig(HFFolderConfig, ImageTowerConfig):
    """Settings of an image encoder from a folder (see `HFFolderConfig`): ``model.image=hf:FOLDER``. Of a folder of two
    towers (CLIP) it is the image's.

    pooling     "pooler": what the encoder itself pools; "cls": its first token; "mean" of its tokens
    projection  to the model's embed_dim; "none" needs equal widths
    """

    settings: str = Field(default=TINY_IMAGE)
    pooling: Pooling = "pooler"
    projection: Projection = "linear"

    def build(self, resolution: int, embed_dim: int) -> "HFImageTower":
        return HFImageTower(self, resolution, embed_dim)

    def theirs(self, **changes: Any) -> Any:
        return _section(super().theirs(**changes), "vision_config")


class HFTextTowerConfig(HFFolderConfig, TextTowerConfig):
    """Settings of a text encoder from a folder (see `HFFolderConfig`): ``model.text=hf:FOLDER``, with its tokenizer:
    ``tokenizer=FOLDER``. Of a folder of two towers (CLIP) it is the text's.

    pooling     "pooler": what the encoder itself pools; "cls": its first token; "mean" of its tokens
    projection  to the model's embed_dim; "none" needs equal widths
    """

    settings: str = Field(default=TINY_TEXT)
    pooling: Pooling = "pooler"
    projection: Projection = "linear"

    def build(self, vocab_size: int, context_length: int, embed_dim: int) -> "HFTextTower":
        return HFTextTower(self, vocab_size, context_length, embed_dim)

    def theirs(self, **changes: Any) -> Any:
        return _section(super().theirs(**changes), "text_config")


class HFImageTower(HFPart, ImageTower):
    """Their encoder, one of three poolings, and a projection N(0, 1/width). `prefix`: tokens before the patches'."""

    def __init__(self, config: HFImageTowerConfig, resolution: int, embed_dim: int) -> None:
        HFPart.__init__(self, config, "AutoModel")
        self.config = config
        theirs = config.theirs()
        self.backbone = self.adopt(theirs)
        self.width, self.depth = int(theirs.hidden_size), int(theirs.num_hidden_layers)
        self._side = int(theirs.image_size)
        takes = inspect.signature(self.backbone.forward).parameters
        self._interpolates = "interpolate_pos_encoding" in takes
        blocks_of(self.backbone, self.depth)
        _rest_pooler(self.backbone, config.pooling)
        self.projection = build_projection(config.projection, self.width, embed_dim, type(config).__name__)
        patches = (resolution // int(theirs.patch_size)) ** 2
        self.prefix = _count_tokens(self.backbone, resolution, self._call(resolution)) - patches

    @property
    def blocks(self) -> nn.ModuleList:
        """Their blocks."""
        return blocks_of(self.backbone, self.depth)

    def tokens(self, images: Float[Tensor, "b 3 h w"], layer: int = -1) -> Float[Tensor, "b p d"]:
        """Their last hidden states (CLIP's have no last norm); of an earlier `layer` (-2: the last block but one) what
        that block gives."""
        self.check_filled(images)
        out = self.backbone(images, output_hidden_states=layer != -1, **self._call(images.shape[-1]))
        return cast(Tensor, out.last_hidden_state if layer == -1 else out.hidden_states[layer])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        self.check_filled(images)
        out = self.backbone(images, **self._call(images.shape[-1]))
        hidden = out.last_hidden_state
        lengths = torch.full((len(hidden),), hidden.shape[1], device=hidden.device)
        x = _pooled(out, hidden, lengths, self.config.pooling, self.backbone)
        return x if self.projection is None else self.projection(x)

    def decay_free(self) -> set[str]:
        return _positions(self)

    def _call(self, side: int) -> dict[str, Any]:
        return {"interpolate_pos_encoding": True} if self._interpolates and side != self._side else {}


class HFTextTower(HFPart, TextTower):
    """Their encoder, one of three poolings, and a projection N(0, 1/width)."""

    def __init__(self, config: HFTextTowerConfig, vocab_size: int, context_length: int, embed_dim: int) -> None:
        HFPart.__init__(self, config, "AutoModel")
        self.config = config
        theirs = config.theirs(vocab_size=vocab_size, max_position_embeddings=context_length)
        room = getattr(theirs, "max_position_embeddings", None) or context_length
        if theirs.vocab_size < vocab_size or room < context_length:
            raise ConfigError(
                f"the tokenizer must be the text encoder's own, of at most {theirs.vocab_size:,} tokens, and "
                f"context_length at most {room}; got {vocab_size:,} and {context_length}. Set tokenizer to its folder."
            )
        self.backbone = self.adopt(theirs)
        self.width, depth = int(theirs.hidden_size), int(theirs.num_hidden_layers)
        blocks_of(self.backbone, depth)
        _rest_pooler(self.backbone, config.pooling)
        self.projection = build_projection(config.projection, self.width, embed_dim, type(config).__name__)

    def tokens(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b t d"]:
        return cast(Tensor, self._read(tokens, lengths).last_hidden_state)

    def forward(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        out = self._read(tokens, lengths)
        x = _pooled(out, out.last_hidden_state, lengths, self.config.pooling, self.backbone)
        return x if self.projection is None else self.projection(x)

    def decay_free(self) -> set[str]:
        return _positions(self)

    def _read(self, tokens: Tensor, lengths: Tensor) -> Any:
        self.check_filled(tokens)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return self.backbone(input_ids=torch.where(real, tokens, 0), attention_mask=real.long())


def _section(theirs: Any, name: str) -> Any:
    return getattr(theirs, name, theirs)


def _pooled(out: Any, hidden: Tensor, lengths: Tensor, kind: Pooling, backbone: nn.Module) -> Tensor:
    if kind == "cls":
        return take_first(hidden, lengths)
    if kind == "mean":
        return masked_mean(hidden, lengths)
    found = getattr(out, "pooler_output", None)
    if found is None:
        raise ConfigError(
            f"pooling must be 'cls' or 'mean' for {type(backbone).__name__}, which pools nothing itself; got 'pooler'."
        )
    return cast(Tensor, found)


def _rest_pooler(backbone: nn.Module, kind: Pooling) -> None:
    """What nothing reads does not train."""
    pooler = getattr(backbone, "pooler", None)
    if kind != "pooler" and isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)


def _count_tokens(backbone: nn.Module, resolution: int, told: dict[str, Any]) -> int:
    """How many tokens come of an image, seen on tensors without content."""
    state = {n: t.detach().to("meta") for n, t in [*backbone.named_parameters(), *backbone.named_buffers()]}
    empty = torch.empty(1, 3, resolution, resolution, device="meta")
    try:
        with torch.no_grad():
            out = functional_call(backbone, state, (empty,), told)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"image_format.resolution must be a size that {type(backbone).__name__} takes; got {resolution}: {error}. "
            "Set the size that it was trained with."
        ) from None
    return int(out.last_hidden_state.shape[1])


def _positions(tower: nn.Module) -> set[str]:
    words = ("position_embedding", "cls_token", "class_embedding")
    return {n for n, p in tower.named_parameters() if p.ndim > 1 and any(w in n for w in words)}
