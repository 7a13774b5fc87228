import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from diptych.core.errors import ConfigError
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.nn.mask import Layout, causal
from tests.models.towers import stir

NAMES = {
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.out_proj": "self_attn.o_proj",
    "mlp.fc_gate": "mlp.gate_proj",
    "mlp.fc_1": "mlp.up_proj",
    "mlp.fc_2": "mlp.down_proj",
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
}


def test_llama_is_one_of_its_settings():
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=56,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            attn_implementation="eager",
        )
    )
    stir(theirs)
    config = CausalTransformerConfig(
        width=32,
        depth=2,
        heads=4,
        kv_heads=2,
        mlp_ratio=56 / 32,
        activation="swiglu",
        norm="rms",
        norm_eps=1e-6,
        bias=False,
        tied=False,
    )
    ours = config.build(40, 16)
    state = {"token_embed.weight": theirs.model.embed_tokens.weight, "norm_final.weight": theirs.model.norm.weight}
    state["lm_head.weight"] = theirs.lm_head.weight
    for i in range(2):
        layer = dict(theirs.model.layers[i].named_parameters())
        state |= {f"blocks.{i}.{mine}.weight": layer[f"{name}.weight"] for mine, name in NAMES.items()}
    ours.load_state_dict(state)
    tokens = torch.randint(40, (2, 7))
    plan = causal().plan(Layout.plain(7, tokens.device))
    hidden = ours(ours.embed(tokens), plan, torch.arange(7)[None])
    want = theirs(tokens, labels=tokens)
    torch.testing.assert_close(ours.logits(hidden), want.logits, atol=1e-5, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(ours.logits(hidden)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(loss, want.loss)
    loss.backward()
    want.loss.backward()
    for i, (mine, name) in enumerate(NAMES.items()):
        grad = ours.get_parameter(f"blocks.{i % 2}.{mine}.weight").grad
        wanted = theirs.model.layers[i % 2].get_parameter(f"{name}.weight").grad
        torch.testing.assert_close(grad, wanted, atol=1e-5, rtol=1e-4)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="must be even"):
        CausalTransformerConfig(width=9, heads=3)
    with pytest.raises(ConfigError, match="counted must be 'sequence'"):
        CausalTransformerConfig(counted="text")
