import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.connectors.connector import Given
from diptych.models.connectors.qformer import QFormerConfig
from tests.models.small_blip2 import small_blip2
from tests.models.towers import stir
from tests.models.writers import stirred

SMALL = QFormerConfig(queries=4, width=16, depth=3, heads=2)


def test_the_second_stage_is_the_first_ones_queries_through_one_linear_map():
    first = stirred(small_blip2())
    connector = SMALL.build(Given(first.image_tokens, 12, 0), 24)
    stir(connector)
    state = connector.state_dict()
    brought = first.qformer.state_dict()
    assert {n for n in state if n not in brought} == {"proj.weight", "proj.bias"}
    assert all("text" in n for n in brought if n not in state)  # the half that reads texts is dropped
    connector.load_state_dict(state | {n: t for n, t in brought.items() if n in state})
    x = torch.randn(2, first.image_tokens, 12)
    torch.testing.assert_close(connector(x), connector.proj(first.qformer(x)))
    assert connector.tokens == 4
    assert connector(x).shape == (2, 4, 24)


def test_every_second_block_looks_at_the_image():
    blocks = SMALL.build(Given(9, 12, 3), 24).blocks
    assert [b.cross_attention is not None for b in blocks] == [True, False, True]
    assert blocks[0].cross_attention.k_proj.in_features == 12


def test_heads_must_divide():
    with pytest.raises(ConfigError, match=r"QFormerConfig\.width must be a multiple of heads; got width 30, heads 4"):
        QFormerConfig(width=30)
