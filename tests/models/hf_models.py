"""Tiny models of transformers in folders, every number random."""

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.models.towers import stir

VOCAB = 34
"""More than the tokenizer's, as published models have."""
BLOCK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**BLOCK, "vocab_size": VOCAB, "max_position_embeddings": 64}
LANGUAGES: dict[str, dict[str, Any]] = {
    "opt": {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 24},
    "llama": {**TEXT, "intermediate_size": 48, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCAB, "n_positions": 64},
    "qwen2": {**TEXT, "intermediate_size": 48, "num_key_value_heads": 2, "tie_word_embeddings": True},
}


def save_language(kind: str, path: Path, **changes: Any) -> Any:
    """A language model as transformers writes it, and the folder's model itself."""
    config = transformers.AutoConfig.for_model(kind, **LANGUAGES[kind] | changes)
    return _save(transformers.AutoModelForCausalLM.from_config(config), path)


def save_encoder(kind: str, path: Path, **values: Any) -> Any:
    """An encoder as transformers writes it."""
    config = transformers.AutoConfig.for_model(kind, **BLOCK | {"intermediate_size": 48} | values)
    return _save(transformers.AutoModel.from_config(config), path)


def _save(model: Any, path: Path) -> Any:
    torch.manual_seed(0)
    stir(model)
    model.eval().save_pretrained(path)
    return model
