import inspect
import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import diptych.models.text_transformer as text_transformer
import diptych.nn.attention as attention_of
from diptych.core.errors import ConfigError, DataError
from diptych.models.text_transformer import TextTransformer, TextTransformerConfig
from diptych.nn.packing import pack
from tests.models.towers import CONTEXT, EMBED, VOCAB, small, stir, texts
from tests.reference import text_transformer as reference

VARIANTS = [
    (a, p)
    for a, p in itertools.product(("causal", "bidirectional"), ("eos", "cls", "mean", "last"))
    if (a, p) != ("causal", "cls")
]
PACKED = [v for v in VARIANTS if v[1] != "last"]
MANY = (5, 1, 9, 3, 3, 12, 2, 2, 4, 1, 6, 3)


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


def gradients(made: TextTransformer, out: Tensor, toward: Tensor) -> dict[str, Tensor]:
    """Of every parameter; a key's bias has none (softmax is blind to it), only rounding."""
    named = {n: p for n, p in made.named_parameters() if not n.endswith("k_proj.bias")}
    return dict(zip(named, torch.autograd.grad((out * toward).sum(), list(named.values())), strict=True))


def agree(made: TextTransformer, ours: Tensor, plain: Tensor, atol: float, rtol: float) -> None:
    torch.testing.assert_close(ours, plain, atol=atol, rtol=rtol)
    toward = torch.randn_like(plain)
    a, b = gradients(made, ours, toward), gradients(made, plain, toward)
    for name, wanted in b.items():
        torch.testing.assert_close(a[name], wanted, atol=10 * atol, rtol=10 * rtol, msg=lambda m, n=name: f"{n}: {m}")


def loops_over_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """What the CUDA kernel of variable lengths computes, for this machine."""
    bounds, rows = cu_seq_q.tolist(), []
    for a, b in itertools.pairwise(bounds):
        assert b - a <= max_q == max_k
        q, k, v = (x[a:b].transpose(0, 1)[None] for x in (query, key, value))
        rows.append(F.scaled_dot_product_attention(q, k, v, is_causal=window_size == (-1, 0))[0].transpose(0, 1))
    return torch.cat(rows)


@pytest.fixture(params=["tree", "rows", "flat"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Packed as on a CPU (causal: as a tree), as in float32 on CUDA, or as for a kernel of variable lengths."""
    if request.param == "rows":
        monkeypatch.setattr(text_transformer, "pack_tree", lambda tokens, n: pack(n, tokens.shape[1], tokens.device))
    if request.param == "flat":
        assert set(inspect.signature(loops_over_runs).parameters) <= set(
            inspect.signature(attention_of.varlen_attn).parameters
        )
        monkeypatch.setattr(attention_of, "varlen_attn", loops_over_runs)
        monkeypatch.setattr(text_transformer, "has_runs_kernel", lambda *a: True)
    return str(request.param)


@pytest.mark.parametrize("attention,pooling", PACKED)
def test_packed_equals_each_text_alone_in_value_and_gradient(attention: str, pooling: str, form: str) -> None:
    """In float64, where nothing but a mistake is larger than 1e-10."""
    made = tower(attention=attention, pooling=pooling).double()
    tokens, lengths = texts(MANY)
    tokens[:8] %= 2  # some begin alike
    seen: list[int] = []
    made.blocks[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[:2].numel()))
    ours = made(tokens, lengths)
    written = {"flat": sum(MANY), "rows": 64, "tree": 48 if attention == "causal" else 64}
    assert seen == [written[form]]  # of 144 padded places
    agree(made, ours, reference.forward(made, tokens, lengths), 1e-11, 1e-10)


@pytest.mark.parametrize("attention,pooling", PACKED)
def test_the_padded_twin_equals_each_text_alone(attention: str, pooling: str) -> None:
    made = tower(attention=attention, pooling=pooling).double()
    tokens, lengths = texts(MANY)
    agree(made, made.padded(tokens, lengths), reference.forward(made, tokens, lengths), 1e-11, 1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, CONTEXT), max_size=30), st.sampled_from(PACKED))
def test_packed_equals_padded_for_any_lengths(lengths: list[int], variant: tuple[str, str]) -> None:
    """In float32: sums over up to 16 numbers in another order, through two blocks. Rows without tokens, too."""
    made = tower(attention=variant[0], pooling=variant[1])
    tokens, n = torch.randint(0, 3, (len(lengths), max([1, *lengths]))), torch.tensor(lengths, dtype=torch.int64)
    ours, plain = made(tokens, n), made.padded(tokens, n)
    assert ours.shape == (len(lengths), EMBED)
    agree(made, ours, plain, 1e-5, 1e-5)
    torch.testing.assert_close(made.tokens(tokens, n), _zeroed(made, tokens, n), atol=1e-5, rtol=1e-5)


def _zeroed(made: TextTransformer, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Outputs of every text alone, zeros behind its end."""
    out = torch.zeros(*tokens.shape, made.width)
    for i, n in enumerate(lengths.tolist()):
        if n:
            out[i, :n] = made.tokens(tokens[i, None, :n], lengths[i, None])[0].detach()
    return out


def test_a_text_without_tokens_is_pooled_to_zeros() -> None:
    for attention, pooling in PACKED:
        made = tower(attention=attention, pooling=pooling, projection="linear_bias")
        assert made.projection is not None
        zeros = torch.zeros(made.width)
        empty = made.projection(zeros if pooling == "mean" else made.norm_final(zeros))
        tokens, lengths = texts((4, 0, 12, 3, 0, 2, 2))
        for out in (made(tokens, lengths), made(tokens[:2], lengths[:2])):
            torch.testing.assert_close(out[1], empty)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_drop_path_draws_once_a_text_packed_or_padded(attention: str, form: str) -> None:
    made = tower(attention=attention, drop_path=0.5).double().train()
    tokens, lengths = texts(MANY)
    torch.manual_seed(3)
    ours = made(tokens, lengths)
    torch.manual_seed(3)
    plain = made.padded(tokens, lengths)
    agree(made, ours, plain, 1e-11, 1e-10)
    assert not torch.allclose(ours, made(tokens, lengths))


@pytest.mark.parametrize("pooling", ["eos", "mean"])
def test_packed_in_bfloat16_is_as_close_as_padded(pooling: str) -> None:
    """bfloat16 holds 8 bits: each is a few of its steps away from float32, and neither more than the other."""
    made, (tokens, lengths) = tower(pooling=pooling, width=64), texts(MANY)
    exact = made(tokens, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = made(tokens, lengths), made.padded(tokens, lengths)
    scale = exact.std()
    assert (ours - exact).abs().max() < 0.1 * scale
    assert (ours - exact).square().mean() < 2 * (plain - exact).square().mean()
    agree(made, ours.float(), plain.float(), 0.1 * scale.item(), 2**-5)


def test_blocks_may_be_checkpointed_and_compiled() -> None:
    made = tower(attention="bidirectional", pooling="mean", drop_path=0.3).train()
    tokens, lengths = texts(MANY)
    torch.manual_seed(3)
    plain = gradients(made, made(tokens, lengths), torch.ones(()))
    for block in made.blocks:
        block.forward = lambda x, mask, whole=block.forward: checkpoint(whole, x, mask, use_reentrant=False)
    torch.manual_seed(3)
    torch.testing.assert_close(gradients(made, made(tokens, lengths), torch.ones(())), plain)


COMPILED = """
import torch
from tests.models.test_text_transformer import MANY, texts, tower

made, graphs = tower(pooling="mean", drop_path=0.3).train(), []
batches = [texts(MANY[i:] + MANY[:i] * 3) for i in range(4, 9)]


def outputs():
    torch.manual_seed(3)
    return [made(*b) for b in batches]


plain = outputs()
for block in made.blocks:
    block.compile(backend=lambda graph, inputs: graphs.append(graph) or graph.forward, dynamic=True)
for ours, wanted in zip(outputs(), plain, strict=True):
    torch.testing.assert_close(ours, wanted)
print(len(graphs))
"""


@pytest.mark.slow
def test_compiled_blocks_serve_all_shapes_without_new_graphs() -> None:
    """One graph a block, whole. In a process of its own: the compiler cannot see through executed annotations."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 2


def test_flops_are_counted_without_content() -> None:
    made = tower().to("meta")
    flops = []
    for lengths in (torch.full((6,), CONTEXT, device="meta"), torch.tensor([CONTEXT, 3, 3, 3, 3, 3])):
        with FlopCounterMode(display=False) as counter:
            made(torch.zeros(6, CONTEXT, dtype=torch.int64, device="meta"), lengths).sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[1] < 0.6 * flops[0]


def test_lengths_must_fit_the_tokens() -> None:
    with pytest.raises(DataError, match=r"lengths must lie in 0..4, the width of the token matrix; got 3 to 5"):
        tower()(torch.zeros(2, 4, dtype=torch.int64), torch.tensor([3, 5]))


@pytest.mark.gpu
@pytest.mark.parametrize("attention,pooling", PACKED)
def test_kernel_of_variable_lengths_equals_padded(attention: str, pooling: str) -> None:
    """bfloat16 on CUDA, where the form is flat; and float32 there, where it is rows."""
    made, (tokens, lengths) = tower(attention=attention, pooling=pooling, width=64).cuda(), texts(MANY)
    exact = made.padded(tokens.cuda(), lengths)
    agree(made, made(tokens.cuda(), lengths), exact, 1e-4, 1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        ours = made(tokens.cuda(), lengths)
    agree(made, ours.float(), exact, 0.1 * exact.std().item(), 2**-4)


@pytest.mark.parametrize("packed", [True, False])
def test_states_are_those_before_and_after_the_last_norm(packed, monkeypatch):
    torch.manual_seed(0)
    config = TextTransformerConfig(width=16, depth=2, heads=2, attention="bidirectional", pooling="cls")
    tower = config.build(50, 12, 8)
    if not packed:
        monkeypatch.setattr(type(tower), "_packing", lambda *_: None)
    tokens, lengths = torch.randint(2, 50, (4, 9)), torch.tensor([5, 1, 9, 3])
    before, after = tower.states(tokens, lengths)
    torch.testing.assert_close(after, tower.tokens(tokens, lengths))
    real = torch.arange(9) < lengths[:, None]
    torch.testing.assert_close(tower.norm_final(before)[real], after[real])
    assert (before[~real] == 0).all()
