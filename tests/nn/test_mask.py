import itertools

import pytest
import torch
from torch import Tensor

from diptych.nn import mask
from diptych.nn.mask import IMAGE, PADDING, QUERY, TEXT, Layout
from tests.reference import mask as reference


def layouts() -> tuple[Layout, Layout]:
    """Two rows with packed segments, padding, all modalities, and positions that repeat and jump."""
    segment = torch.tensor([[0, 0, 0, 1, 1, 1, 2, PADDING], [0, 0, 0, 0, 1, 1, PADDING, PADDING]])
    modality = torch.tensor([[IMAGE, QUERY, TEXT, IMAGE, IMAGE, TEXT, TEXT, TEXT], [QUERY, QUERY, 1, 0, 1, 0, 0, 0]])
    position = torch.tensor([[0, 0, 1, 0, 0, 1, 0, 0], [0, 1, 2, 3, 0, 5, 0, 0]])
    query = Layout(8, segment, modality, position)
    return query, Layout(5, segment[:, :5], modality[:, :5], position[:, :5])


@pytest.mark.parametrize("name", reference.RULES)
@pytest.mark.parametrize("cross", [False, True])
def test_each_rule_equals_plain_loops(name: str, cross: bool) -> None:
    query, key = layouts()
    key = key if cross else query
    ours = getattr(mask, name)().dense(query, key if cross else None).expand(2, -1, -1)
    assert torch.equal(ours, reference.dense(reference.RULES[name], query, key, rows=2))


def test_compositions_equal_plain_loops() -> None:
    query, _ = layouts()
    for a, b in itertools.product(reference.RULES, repeat=2):
        left, right = getattr(mask, a)(), getattr(mask, b)()
        x = reference.dense(reference.RULES[a], query, query, 2)
        y = reference.dense(reference.RULES[b], query, query, 2)
        assert torch.equal((left & right).dense(query).expand(2, -1, -1), x & y)
        assert torch.equal((left | right).dense(query).expand(2, -1, -1), x | y)


def test_keys_and_queries_choose_columns_and_rows() -> None:
    layout = Layout(3, modality=torch.tensor([[IMAGE, TEXT, TEXT]]))
    assert mask.keys(IMAGE).dense(layout)[0].tolist() == [[True, False, False]] * 3
    assert mask.queries(IMAGE).dense(layout)[0].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_padding_follows_lengths() -> None:
    layout = Layout.of_lengths(torch.tensor([1, 3]), 3)
    assert mask.padding().dense(layout)[:, 0].tolist() == [[True, False, False], [True, True, True]]


def test_flamingo_text_sees_only_its_last_image() -> None:
    text = Layout(5)
    media = Layout(4, modality=torch.full((1, 4), IMAGE), position=torch.tensor([[1, 1, 3, 3]]))
    seen = mask.media_causal().dense(text, media)[0].int().tolist()
    assert seen == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def kind(plan: mask.MaskPlan | None) -> str:
    return "nothing" if plan is None else "causal" if plan.is_causal else "matrix"


def test_plans_use_the_cheapest_path_that_is_exact() -> None:
    plain, padded = Layout(4), Layout.of_lengths(torch.tensor([2, 4]), 4)
    every, causal, padding, block = mask.bidirectional(), mask.causal(), mask.padding(), mask.block_diagonal()
    assert kind(every.plan(plain)) == kind(every.plan(padded)) == "nothing"
    assert kind(padding.plan(plain)) == kind((padding & block).plan(plain)) == "nothing"
    assert kind(causal.plan(plain)) == kind((causal & padding & block).plan(plain)) == "causal"
    assert kind((causal | every).plan(plain)) == "nothing"
    assert kind((causal | mask.keys(IMAGE)).plan(plain)) == "matrix"
    assert kind((causal & padding).plan(padded)) == "matrix"
    assert kind(causal.plan(Layout(4, position=torch.arange(4)[None]))) == "matrix"
    assert kind(causal.plan(plain, Layout(4))) == "matrix"  # cross-attention is never the kernel's causal path


def test_plans_agree_with_the_matrix() -> None:
    query, _ = layouts()
    for name in reference.RULES:
        rule = getattr(mask, name)()
        plan, dense = rule.plan(query), rule.dense(query)
        if plan is None:
            assert bool(dense.all())
            continue
        sees = dense.any(-1, keepdim=True)
        assert plan.allowed is not None
        assert plan.sees is not None
        expanded: Tensor = (plan.allowed & plan.sees)[:, 0].expand_as(dense)
        assert torch.equal(expanded, dense)
        assert torch.equal(plan.sees[:, 0].expand_as(sees), sees)
        assert bool(plan.allowed.any(-1).all())


def test_masks_are_values() -> None:
    assert mask.causal() & mask.padding() == mask.causal() & mask.padding()
    assert mask.keys(IMAGE) != mask.keys(TEXT)
    assert str(mask.causal() & (mask.padding() | mask.keys(1))) == "(causal and (padding or keys(1)))"
