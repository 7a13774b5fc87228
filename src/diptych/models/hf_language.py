"""Any causal language model in a local folder of transformers (OPT, LLaMA, GPT-2, Qwen, ...) as a language model here.

Its own code computes it; masks, positions and what was read are ours, so that packed rows, images in the text, decoding
and cross-attention between its blocks are what they are with our own.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.hf_folder import HFFolderConfig, HFPart, blocks_of, inside
from diptych.models.language import BeforeBlock, Language, LanguageConfig
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan

TINY = json.dumps(
    {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tie_word_embeddings": True,
    }
)
SCALES = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0, "output_multiplier_scale": 1.0}
"""What some models do to their logits, with the value at which it does nothing."""
TURNED_BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions that depend on the longest row of a batch."""


class HFLanguageConfig(HFFolderConfig, LanguageConfig):
    """Settings of a language model from a folder (see `HFFolderConfig`): ``model.language=hf:FOLDER``.

    The tokenizer must be the folder's own: ``tokenizer=FOLDER``.
    """

    settings: str = Field(default=TINY)

    def build(self, vocab_size: int, context_length: int) -> "HFLanguage":
        return HFLanguage(self, vocab_size, context_length)

    def token_width(self) -> int:
        theirs = self.theirs()
        return int(getattr(theirs, "word_embed_proj_dim", None) or theirs.hidden_size)


class HFLanguage(HFPart, Language):
    """`backbone` is theirs without the head; `lm_head` is theirs, unless it is the token embeddings."""

    def __init__(self, config: HFLanguageConfig, vocab_size: int, context_length: int) -> None:
        HFPart.__init__(self, config, "AutoModelForCausalLM")
        self.config = config
        theirs = config.theirs(vocab_size=vocab_size, max_position_embeddings=context_length)
        _check_size(theirs, vocab_size, context_length)
        _check_kind(theirs, context_length)
        whole = self.adopt(theirs)
        self.backbone = inside(whole)
        _check_call(self.backbone)
        embedding, head = self._embedding(), whole.get_output_embeddings()
        self.lm_head = None if head.weight is embedding.weight and head.bias is None else head
        self.width, self.depth = embedding.embedding_dim, int(theirs.num_hidden_layers)
        self.vocab_size, self.context_length = embedding.num_embeddings, context_length
        blocks_of(self.backbone, self.depth)

    def embed(self, tokens: Int64[Tensor, "b t"], start: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b t d"]:
        self.check_filled(tokens)
        return self._embedding()(tokens)

    def begin(self) -> Cache:
        return Cache(self.depth)

    def forward(
        self,
        x: Float[Tensor, "r l d"],
        mask: MaskPlan | None,
        positions: Int64[Tensor, "#r l"],
        reading: Cache | None = None,
        before: BeforeBlock | None = None,
        context: Float[Tensor, "r k c"] | None = None,
        only: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "r l d"] | Float[Tensor, "n d"]:
        self.check_filled(x)
        if context is not None:
            raise ConfigError(
                "a language model from a folder must get its cross-attention through `before`; got a context. Use a "
                "causal_transformer with cross_attention."
            )
        past = 0 if reading is None else reading.layers[0].own.length
        told: dict[str, Any] = {} if reading is None else {"past_key_values": _their_cache()(reading)}
        with _before_blocks(blocks_of(self.backbone, self.depth), before):
            out = self.backbone(
                inputs_embeds=x,
                attention_mask=_added(mask, x, past),
                position_ids=positions.expand(x.shape[0], -1).contiguous(),
                use_cache=reading is not None,
                **told,
            )
        hidden = cast(Tensor, out.last_hidden_state)
        return hidden if only is None else hidden.flatten(0, 1).index_select(0, only)

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        if self.lm_head is None:
            return self._embedding().weight, None
        return cast(Tensor, self.lm_head.weight), cast(Tensor | None, self.lm_head.bias)

    def decay_free(self) -> set[str]:
        words = ("position_embeddings.", "embed_positions.", "wpe.")
        return {n for n, p in self.named_parameters() if p.ndim > 1 and any(w in n for w in words)}

    def _embedding(self) -> nn.Embedding:
        backbone: Any = self.backbone
        return cast(nn.Embedding, backbone.get_input_embeddings())


def _check_size(theirs: Any, vocab_size: int, context_length: int) -> None:
    if theirs.vocab_size < vocab_size:
        raise ConfigError(
            f"the tokenizer must be the language model's own, of at most {theirs.vocab_size:,} tokens; got one of "
            f"{vocab_size:,}. Set tokenizer to its folder."
        )
    room = getattr(theirs, "max_position_embeddings", None) or context_length
    if room < context_length:
        raise ConfigError(
            f"model.context_length and the images' tokens must be at most {room} together, for which the language "
            f"model has positions; got {context_length}. Lower context_length or max_images."
        )


def _check_kind(theirs: Any, context_length: int) -> None:
    """Refuse what would be computed otherwise than transformers does it, rather than approximate it."""
    kinds = set(getattr(theirs, "layer_types", None) or ())
    window = getattr(theirs, "sliding_window", None) if getattr(theirs, "use_sliding_window", True) else None
    rope = getattr(theirs, "rope_parameters", None) or {}
    scaled = {n: v for n, dull in SCALES.items() if (v := getattr(theirs, n, None)) not in (None, dull)}
    short = kinds <= {"full_attention", "sliding_attention"} and (window is None or window >= context_length)
    wrong = {
        f"layers of kind {', '.join(sorted(kinds - {'full_attention'}))}": bool(kinds - {"full_attention"})
        and not short,
        f"a window of {window} for a context of {context_length}": not kinds and not short,
        f"rotary positions of kind {rope.get('rope_type')!r}": rope.get("rope_type") in TURNED_BY_LENGTH,
        f"logits changed by {', '.join(scaled)}": bool(scaled),
        "ALiBi": bool(getattr(theirs, "alibi", False)),
    }
    said = [what for what, is_so in wrong.items() if is_so]
    if said:
        raise ConfigError(
            f"a language model from a folder must attend to all that came before, and read its logits plainly; this "
            f"{theirs.model_type} has {'; '.join(said)}. Lower context_length below its window, or name another folder."
        )


def _check_call(backbone: nn.Module) -> None:
    wanted = {"inputs_embeds", "attention_mask", "position_ids", "past_key_values"}
    lacks = sorted(wanted - set(inspect.signature(backbone.forward).parameters))
    if lacks:
        raise ConfigError(
            f"a language model from a folder must take {', '.join(sorted(wanted))}; {type(backbone).__name__} lacks "
            f"{', '.join(lacks)}. Name a folder of another kind."
        )


def _added(mask: MaskPlan | None, x: Tensor, past: int) -> Float[Tensor, "#b 1 #q k"]:
    """The mask as what is added to scores: 0 where a query sees a key, else the least number there is."""
    count, keys = x.shape[1], past + x.shape[1]
    if mask is None:
        return x.new_zeros(1, 1, count, keys)
    assert mask.runs is None  # asked for by a kernel that is not theirs
    allowed = mask.allowed
    if allowed is None:
        allowed = torch.ones(1, 1, count, keys, dtype=torch.bool, device=x.device).tril(past)
    return torch.where(allowed, 0.0, torch.finfo(x.dtype).min).to(x.dtype).expand(-1, 1, count, keys)


@contextmanager
def _before_blocks(blocks: nn.ModuleList, before: BeforeBlock | None) -> Iterator[None]:
    """Let each block read what `before` makes of its input, for as long as this lasts."""

    def hook(i: int) -> Any:
        def change(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert before is not None
            if args:
                return (before(i, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": before(i, kwargs["hidden_states"])}

        return change

    hooks = []
    try:
        if before is not None:
            hooks = [b.register_forward_pre_hook(hook(i), with_kwargs=True) for i, b in enumerate(blocks)]
        yield
    finally:
        for one in hooks:
            one.remove()


@cache
def _their_cache() -> type:
    """Their cache's class, keeping what it is given in ours."""
    from transformers.cache_utils import Cache as Theirs

    class Kept(Theirs):
        """What a `nn.cache.Cache` holds, as transformers asks for it."""

        def __init__(self, kept: Cache) -> None:
            self.kept, self.layers = kept, []

        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            return self.kept.layers[layer_idx].own.extend(key_states, value_states)

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return self.kept.layers[layer_idx].own.length

        def get_query_offset(self, layer_idx: int = 0) -> int:
            return self.get_seq_length(layer_idx)

        def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
            return self.get_seq_length(layer_idx) + query_length, 0

    return Kept
