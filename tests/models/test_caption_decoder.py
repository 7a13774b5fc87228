import torch

from diptych.models.caption_decoder import ImageHalf, TextHalf
from diptych.nn.block import BlockConfig
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan
from tests.models.towers import stir

BLOCK = BlockConfig(width=16, depth=2, heads=2)


def text_half(legacy: bool, context: int = 6) -> TextHalf:
    half = TextHalf(BLOCK, 20, context, legacy, pad_id=0)
    stir(half)
    return half.eval()


def by_hand(half: TextHalf, ids: list[int], sees: list[int]) -> torch.Tensor:
    """The CLS behind `ids`, seeing the places `sees` (its own is len(ids)), with a matrix of what sees what."""
    x = half.token_embed(torch.tensor([ids])) + half.position_embed[: len(ids)]
    x = torch.cat([x, (half.cls_token + half.position_embed[-1])[None, None]], dim=1)
    size = x.shape[1]
    allowed = torch.ones(size, size, dtype=torch.bool).tril()
    allowed[-1] = False
    allowed[-1, sees] = True
    for block in half.blocks:
        x = block(x, MaskPlan(allowed=allowed[None, None]))
    return x[0, -1]


def test_the_cls_sees_the_real_tokens_and_itself():
    half, tokens = text_half(legacy=False), torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]])
    states, cls = half(tokens, torch.tensor([4, 2]))
    torch.testing.assert_close(cls[0], by_hand(half, [5, 6, 7, 8], [0, 1, 2, 3, 4]))
    torch.testing.assert_close(cls[1], by_hand(half, [9, 4], [0, 1, 2]))
    changed, _ = half(torch.tensor([[5, 6, 7, 3], [9, 4, 0, 0]]), torch.tensor([4, 2]))
    torch.testing.assert_close(changed[0, :3], states[0, :3])  # what comes later is not seen
    assert not torch.isclose(changed[0, 3], states[0, 3]).all()


def test_the_legacy_cls_sees_one_padding_token_and_not_itself():
    half, tokens = text_half(legacy=True), torch.tensor([[5, 6, 7, 8], [9, 4, 3, 3]])
    states, cls = half(tokens, torch.tensor([4, 2]))
    torch.testing.assert_close(cls[0], by_hand(half, [5, 6, 7, 8, 0], [0, 1, 2, 3, 4]))
    torch.testing.assert_close(cls[1], by_hand(half, [9, 4, 0], [0, 1, 2]))
    full = torch.tensor([[5, 6, 7, 8, 9, 4]])
    _, cls = half(full, torch.tensor([6]))  # no padding: as it should be
    torch.testing.assert_close(cls[0], by_hand(half, full[0].tolist(), list(range(7))))
    plain = text_half(legacy=False)
    plain.load_state_dict(half.state_dict())
    torch.testing.assert_close(plain(tokens, torch.tensor([4, 2]))[0][0], states[0])  # tokens are what they are


def test_of_a_context_that_was_looked_at_only_the_cache_is_read():
    half = ImageHalf(BLOCK, 12, 20)
    stir(half)
    x, context = torch.randn(3, 4, 16), torch.randn(3, 5, 12)
    whole = half(x, context, MaskPlan(is_causal=True))
    cache = Cache(2)
    with torch.no_grad():
        half.look(context, cache.layers)
        found = half(x, context[:, :0], MaskPlan(is_causal=True), None, cache.layers)
    torch.testing.assert_close(found, whole)
    places = torch.tensor([0, 5, 11])
    picked = half(x, context, MaskPlan(is_causal=True), places)
    torch.testing.assert_close(picked, whole.flatten(0, 1)[places])
    assert ImageHalf(BLOCK.replace(depth=0), 12, 20)(x, context, None, places).shape == (3, 16)


def test_layer_scale_scales_both_branches():
    half = ImageHalf(BLOCK.replace(layer_scale=1e-9), 12, 20)
    x, context = torch.randn(3, 4, 16), torch.randn(3, 5, 12)
    torch.testing.assert_close(half(x, context, None), half.norm_final(x), atol=1e-5, rtol=1e-5)
