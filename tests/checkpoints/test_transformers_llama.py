"""Tests against transformers' LlamaForCausalLM."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import save_pretrained
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.language_model import LanguageModelConfig
from tests.checkpoints.tiny import assert_equal_states, randomise, tokenizer, trained
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of

transformers = pytest.importorskip("transformers")


def save_theirs(path: Path, **values: Any) -> Any:
    from diptych.checkpoints.tokenizer_export import save_for_others

    sizes = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    room = {"vocab_size": tokenizer().vocab_size, "max_position_embeddings": 16}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **room, **values})).eval()
    randomise(model)
    model.tie_weights()
    model.save_pretrained(path)
    save_for_others(path, tokenizer())
    return model


@pytest.mark.parametrize("values", [{"num_key_value_heads": 1}, {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}])
def test_logits_loss_and_gradients_equal_theirs(tmp_path: Path, values: dict[str, Any]) -> None:
    theirs = save_theirs(tmp_path, **values)
    model = our_writer(tmp_path)
    tokens, lengths = torch.randint(3, 300, (3, 9)), torch.tensor([9, 4, 7])
    real = torch.arange(9) < lengths[:, None]
    out = theirs(input_ids=tokens, attention_mask=real.long(), labels=tokens.masked_fill(~real, -100))
    gradients = {
        "language.token_embed.weight": theirs.model.embed_tokens.weight,
        "language.blocks.0.mlp.fc_gate.weight": theirs.model.layers[0].mlp.gate_proj.weight,
        "language.blocks.1.attention.k_proj.weight": theirs.model.layers[1].self_attn.k_proj.weight,
        "language.blocks.0.norm_2.weight": theirs.model.layers[0].post_attention_layernorm.weight,
    }
    rows = rows_of(out.logits, lambda i: list(range(int(lengths[i]) - 1)))
    check_writer(model, Batch(tokens=tokens, lengths=lengths), rows, out.loss, gradients)


@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_is_equal_to_the_byte(tmp_path: Path, tied: bool) -> None:
    first = save_theirs(tmp_path / "theirs", tie_word_embeddings=tied)
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back")
    assert_equal_states(back.state_dict(), first.state_dict())
    assert read("transformers", tmp_path / "back").config == read("transformers", tmp_path / "theirs").config


def test_another_kind_of_language_model_is_refused(tmp_path: Path) -> None:
    plain = LanguageModelConfig(language=CausalTransformerConfig(width=32, depth=1, heads=2), context_length=16)
    mine = trained(plain)
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    with pytest.raises(CheckpointError, match="norm must be 'rms'"):
        convert_to("transformers", tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    "values,message", [({"attention_bias": True}, "with biases"), ({"head_dim": 16}, "heads of 16 in a width of 32")]
)
def test_what_our_blocks_are_not_is_said(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path, **values)
    with pytest.raises(CheckpointError, match=message):
        read("transformers", tmp_path)
