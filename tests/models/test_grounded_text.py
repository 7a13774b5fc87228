import pytest
import torch

from diptych.core.errors import DataError
from diptych.models.grounded_text import GroundedText, RoleBlock, whole_texts
from diptych.nn.mask import MaskPlan
from tests.models.small_fusion import BERT
from tests.models.towers import stir

CROSS = BERT.replace(cross_attention="plain", context_width=6)


def test_reading_and_writing_share_all_but_self_attention():
    block = RoleBlock(CROSS, both=True)
    own = {n.split(".")[0] for n, _ in block.named_parameters()}
    assert own == {
        *("attention", "norm_1", "writing_attention", "writing_norm"),
        *("cross_attention", "norm_cross", "mlp", "norm_2"),
    }
    stir(block)
    x, context = torch.randn(2, 3, 16), torch.randn(2, 4, 6)
    read, written = block(x, None, context), block(x, None, context, writes=True)
    assert not torch.allclose(read, written, atol=1e-3)
    block.writing_attention.load_state_dict(block.attention.state_dict())
    block.writing_norm.load_state_dict(block.norm_1.state_dict())
    torch.testing.assert_close(block(x, None, context, writes=True), read)


def test_alone_it_is_the_plain_block():
    block = RoleBlock(CROSS)
    stir(block)
    x, context = torch.randn(2, 3, 16), torch.randn(2, 4, 6)
    plain = super(RoleBlock, block).forward
    torch.testing.assert_close(block(x, None, context), plain(x, None, context))
    torch.testing.assert_close(block(x, None, context, writes=True), plain(x, None, context))
    torch.testing.assert_close(block(x), plain(x))  # without an image it does not look


@pytest.mark.parametrize("position", ["pre", "post"])
def test_padding_is_not_seen(position):
    text = GroundedText(BERT.replace(norm_position=position), 30, 8, 6)
    stir(text)
    lengths, context = torch.tensor([3, 5]), torch.randn(2, 4, 6)
    tokens = torch.randint(30, (2, 5))
    other = torch.where(torch.arange(5) < lengths[:, None], tokens, (tokens + 3) % 30)
    found = [text(text.embed(t), whole_texts(lengths, 5, t.device), context) for t in (tokens, other)]
    torch.testing.assert_close(found[0][0, :3], found[1][0, :3])
    alone = text(text.embed(tokens[:1, :3]), None, context[:1])
    torch.testing.assert_close(alone[0], found[0][0, :3], atol=1e-5, rtol=1e-5)


def test_the_first_token_may_be_another_and_places_may_be_later():
    text = GroundedText(BERT, 30, 8)
    stir(text)
    tokens = torch.tensor([[2, 5, 6]])
    marked = text.embed(tokens, first_id=29)
    torch.testing.assert_close(marked, text.embed(torch.tensor([[29, 5, 6]])))
    later = text.embed(tokens[:, 1:], torch.tensor([1]), 29)
    torch.testing.assert_close(later, marked[:, 1:])
    with pytest.raises(DataError, match="a text must have at most 8 tokens"):
        text.embed(torch.zeros(1, 9, dtype=torch.int64))


def test_what_may_be_looked_at_can_be_masked():
    text = GroundedText(BERT, 30, 8, 6)
    stir(text)
    context = torch.randn(1, 4, 6)
    x, seen = text.embed(torch.tensor([[2, 5, 6]])), torch.tensor([True, True, False, False])
    plan = MaskPlan(allowed=seen[None, None, None])
    torch.testing.assert_close(text(x, None, context, plan), text(x, None, context[:, :2]), atol=1e-5, rtol=1e-5)
