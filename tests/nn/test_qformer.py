import pytest
import torch

from diptych.nn.cache import LayerCache
from diptych.nn.qformer import QFormerBlock, query_mask, twofold_mask
from tests.reference import qformer as plain

LENGTHS, WIDTH, M = (3, 1, 4), 4, 2


def _dense(plan, rows: int, size: int) -> torch.Tensor:
    if plan is None:
        return torch.ones(rows, size, size, dtype=torch.bool)
    allowed = plan.allowed[:, 0].expand(rows, size, size)
    return allowed & plan.sees[:, 0]


@pytest.mark.parametrize("seen", ["isolated", "full", "visible"])
def test_a_mask_says_what_its_name_says(seen):
    found = _dense(query_mask(M, torch.tensor(LENGTHS), WIDTH, seen), 3, M + WIDTH)
    rule = plain.rule(seen, M)
    for b, n in enumerate(LENGTHS):
        for i in range(M + n):
            for j in range(M + WIDTH):
                assert bool(found[b, i, j]) == (j < M + n and rule(i, j)), (b, i, j)


def test_two_texts_beside_the_queries_are_read_as_if_alone():
    found = _dense(twofold_mask(M, torch.tensor(LENGTHS), WIDTH), 3, M + 2 * WIDTH)
    visible = _dense(query_mask(M, torch.tensor(LENGTHS), WIDTH, "visible"), 3, M + WIDTH)
    alone = _dense(query_mask(0, torch.tensor(LENGTHS), WIDTH, "full"), 3, WIDTH)
    written = [*range(M), *range(M + WIDTH, M + 2 * WIDTH)]
    read = range(M, M + WIDTH)
    for b, n in enumerate(LENGTHS):
        real = [i for k, i in enumerate(written) if k < M + n]
        assert torch.equal(found[b, real][:, written], visible[b, : M + n])
        assert torch.equal(found[b, list(read)[:n]][:, list(read)], alone[b, :n])
        assert not found[b, real][:, list(read)].any()
        assert not found[b, list(read)][:, written].any()


def test_without_padding_there_is_no_matrix():
    assert query_mask(M, torch.tensor([4, 4]), 4, "full") is None


def test_a_block_with_a_cache_goes_on_where_it_stopped():
    torch.manual_seed(0)
    block = QFormerBlock(8, 2, 16, context_width=6).eval()
    x, context = torch.randn(3, 6, 8), torch.randn(3, 5, 6)
    whole = block(x, M, query_mask(M, torch.full((3,), 4), 4, "visible"), context)
    cache = LayerCache()
    queries = block(x[:, :M], M, None, context, cache)
    said = [block(x[:, i : i + 1], 0, None, None, cache) for i in range(M, 6)]
    torch.testing.assert_close(torch.cat([queries, *said], 1), whole, atol=1e-5, rtol=1e-5)


def test_a_block_without_cross_attention_or_text_has_no_weights_for_them():
    block = QFormerBlock(8, 2, 16, crosses=False, reads=False)
    assert {n.split(".")[0] for n, _ in block.named_parameters()} == {"attention", "norm_1", "mlp", "norm_2"}
    assert block(torch.randn(2, 3, 8), 3).shape == (2, 3, 8)
