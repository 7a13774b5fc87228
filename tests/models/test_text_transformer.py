import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import ConfigError, DataError
from diptych.models.text_transformer import TextTransformer, TextTransformerConfig
from tests.models.towers import CONTEXT, EMBED, VOCAB, small, stir, texts

VARIANTS = [
    (a, p)
    for a, p in itertools.product(("causal", "bidirectional"), ("eos", "cls", "mean", "last"))
    if (a, p) != ("causal", "cls")
]


def tower(**changes: Any) -> TextTransformer:
    made = small(TextTransformerConfig, **changes).build(VOCAB, CONTEXT, EMBED)
    stir(made)
    return made.eval()


def test_names_are_those_of_the_house() -> None:
    names = {n for n, _ in tower(projection="linear_bias").named_parameters() if not n.startswith("blocks.")}
    assert names == {
        "token_embed.weight",
        "position_embed",
        "norm_final.weight",
        "norm_final.bias",
        "projection.weight",
        "projection.bias",
    }


@pytest.mark.parametrize("attention,pooling", VARIANTS)
def test_trimming_is_the_same_function_in_value_and_gradient(attention: str, pooling: str) -> None:
    made = tower(attention=attention, pooling=pooling, pad_id=1)
    tokens, lengths = texts()
    full = F.pad(tokens, (0, CONTEXT - tokens.shape[1]), value=1)
    full = torch.where(torch.arange(CONTEXT) < lengths[:, None], full, 1)
    cut, whole = made(full[:, : tokens.shape[1]], lengths), made(full, lengths)
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=1e-6)
    toward = torch.randn_like(cut)
    weights = [p for n, p in made.named_parameters() if not n.endswith("k_proj.bias")]
    for a, b in zip(
        torch.autograd.grad((cut * toward).sum(), weights),
        torch.autograd.grad((whole * toward).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention,pooling", [v for v in VARIANTS if v[1] != "last"])
def test_a_row_in_a_batch_equals_the_row_alone_without_padding(attention: str, pooling: str) -> None:
    made, (tokens, lengths) = tower(attention=attention, pooling=pooling), texts()
    alone = torch.cat([made(t[None, :n], n[None]) for t, n in zip(tokens, lengths, strict=True)])
    torch.testing.assert_close(made(tokens, lengths), alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention,pooling", VARIANTS)
def test_each_pooling_pools_the_tokens(attention: str, pooling: str) -> None:
    made = tower(attention=attention, pooling=pooling)
    tokens, lengths = texts((5, 1, CONTEXT))
    out = made.tokens(tokens, lengths)
    pooled = {
        "eos": torch.stack([row[n - 1] for row, n in zip(out, lengths, strict=True)]),
        "cls": out[:, 0],
        "mean": torch.stack([row[:n].mean(0) for row, n in zip(out, lengths, strict=True)]),
        "last": out[:, -1],
    }[pooling]
    assert made.projection is not None
    torch.testing.assert_close(made(tokens, lengths), made.projection(pooled))


def test_bidirectional_and_causal_see_what_they_say() -> None:
    tokens, lengths = texts((6, 6))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    for attention in ("causal", "bidirectional"):
        made = tower(attention=attention)
        same = torch.isclose(made.tokens(tokens, lengths)[:, :4], made.tokens(changed, lengths)[:, :4]).all()
        assert bool(same) == (attention == "causal")


def test_settings_and_lengths_are_checked() -> None:
    with pytest.raises(ConfigError, match="pooling must not be 'cls' under causal attention"):
        TextTransformerConfig(pooling="cls")
    with pytest.raises(DataError, match=f"at most {CONTEXT} tokens, this tower's context_length; got {CONTEXT + 1}"):
        tower()(torch.zeros(1, CONTEXT + 1, dtype=torch.int64), torch.tensor([3]))


def test_first_weights_have_openais_spread() -> None:
    made = TextTransformerConfig(width=128, depth=2, heads=2).build(300, 77, 96)
    assert made.token_embed.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.position_embed.std().item() == pytest.approx(0.01, rel=0.05)
    assert made.blocks[0].attention.out_proj.weight.std().item() == pytest.approx(128**-0.5 / 2, rel=0.05)
