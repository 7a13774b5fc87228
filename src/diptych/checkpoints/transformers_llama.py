"""A language model of LLaMA's kind as Hugging Face transformers keeps it, on its own and inside LLaVA's folders.

A model that reads images takes it over as its part: ``parts.language=FOLDER``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.checkpoints.foreign import Foreign, demand, demand_kind, read_object, shapes_of, unsupported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_names import FORMAT, is_model, read_folder_weights, read_tokenizer, write_tensors
from diptych.core.files import new_directory
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.language import LanguageConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.pretrained import Pretrained

__all__ = ["FORMAT", "read", "recognises", "write"]

IGNORED = r"(^|\.)rotary_emb\.inv_freq$"
"""Names in old files that hold no weights."""
WHO = "transformers' LLaMA"

DEFAULTS: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "llama"."""
    return is_model(path, "llama")


def read(path: Path) -> Foreign:
    """The model and its tokenizer (None if the folder has none), in our terms."""
    theirs = {**DEFAULTS, **read_object(path / "config.json")}
    language = language_settings(theirs)
    config = LanguageModelConfig(language=language, context_length=theirs["max_position_embeddings"])
    weights = read_folder_weights(path)
    if language.tied:
        weights.pop("lm_head.weight", None)
    vocab_size = weights["model.embed_tokens.weight"].shape[0]
    state = to_ours(_rules(language), weights, shapes_of(config, vocab_size), IGNORED)
    return Foreign(config, state, read_tokenizer(path, config.context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `LlamaForCausalLM` and `AutoTokenizer` load. Refuses what LLaMA has no place for."""
    config, tokenizer = pretrained.model.config, pretrained.tokenizer
    demand_kind(config, (LanguageModelConfig,), WHO, "a language model by itself")
    assert isinstance(config, LanguageModelConfig)
    language = check_llama(config.language, WHO)
    settings = {
        "architectures": ["LlamaForCausalLM"],
        **language_section(language, config.context_length, pretrained.model.vocab_size),
        "bos_token_id": tokenizer.start_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
    }
    with new_directory(out) as folder:
        write_tensors(folder, to_theirs(_rules(language), pretrained.model.state_dict()), settings)
        save_for_others(folder, tokenizer)


def _rules(config: CausalTransformerConfig) -> list[Rule]:
    return language_rules(config, "language", "model", "lm_head")


def language_rules(config: CausalTransformerConfig, ours: str, theirs: str, head: str) -> list[Rule]:
    """Our names below `ours`, theirs below `theirs`, and `head`, the name of their map to logits."""
    rules = [
        Rule((f"{ours}.token_embed.weight",), f"{theirs}.embed_tokens.weight"),
        Rule((f"{ours}.norm_final.weight",), f"{theirs}.norm.weight"),
    ]
    if not config.tied:
        rules.append(Rule((f"{ours}.lm_head.weight",), f"{head}.weight"))
    for n in range(config.depth):
        us, them = f"{ours}.blocks.{n}", f"{theirs}.layers.{n}"
        pairs = [(f"{us}.attention.{x}_proj", f"{them}.self_attn.{x[0]}_proj") for x in ("q", "k", "v", "out")]
        pairs += [(f"{us}.norm_1", f"{them}.input_layernorm"), (f"{us}.norm_2", f"{them}.post_attention_layernorm")]
        mlp = {"fc_1": "up_proj", "fc_gate": "gate_proj", "fc_2": "down_proj"}
        pairs += [(f"{us}.mlp.{mine}", f"{them}.mlp.{name}") for mine, name in mlp.items()]
        rules += same(pairs, ("weight",))
    return rules


def language_settings(theirs: Mapping[str, Any]) -> CausalTransformerConfig:
    """Our settings from a config.json, or a section of one, over `DEFAULTS`. Refuses what our blocks are not."""
    given = {**DEFAULTS, **theirs}
    rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    width, heads = given["hidden_size"], given["num_attention_heads"]
    if given["model_type"] != "llama":
        raise unsupported("transformers", f"a language model of type {given['model_type']!r} (known: llama)")
    if kind != "default":
        raise unsupported("transformers", f"rotary positions of type {kind!r}")
    if given["hidden_act"] != "silu" or given["attention_bias"] or given["mlp_bias"]:
        raise unsupported("transformers", "a LLaMA with biases or another activation than silu")
    if (given.get("head_dim") or width // heads) * heads != width:
        raise unsupported("transformers", f"heads of {given['head_dim']} in a width of {width}")
    kv_heads = given["num_key_value_heads"] or heads
    return CausalTransformerConfig(
        width=width,
        depth=given["num_hidden_layers"],
        heads=heads,
        kv_heads=0 if kv_heads == heads else kv_heads,
        mlp_ratio=given["intermediate_size"] / width,
        activation="swiglu",
        norm="rms",
        norm_eps=given["rms_norm_eps"],
        bias=False,
        positions="rope",
        rope_theta=rope.get("rope_theta", given.get("rope_theta", 10_000.0)),
        tied=given["tie_word_embeddings"],
    )


def language_section(config: CausalTransformerConfig, context_length: int, vocab_size: int) -> dict[str, Any]:
    """A config.json's section from our settings. `context_length`: images' tokens included."""
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "max_position_embeddings": context_length,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
    }


def check_llama(config: LanguageConfig, who: str) -> CausalTransformerConfig:
    """`config`, if it is of LLaMA's kind. Raises a CheckpointError that lists what is not."""
    demand_kind(config, (CausalTransformerConfig,), who, "a language model")
    assert isinstance(config, CausalTransformerConfig)
    block = {"norm": "rms", "norm_position": "pre", "bias": False, "qk_norm": False, "activation": "swiglu"}
    rest = {"positions": "rope", "head_bias": False, "norm_embed": False, "norm_final": True}
    demand(config, {**block, **rest, "cross_attention": "none", "layer_scale": 0.0}, who)
    return config
