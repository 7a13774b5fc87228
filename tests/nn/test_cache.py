import torch

from diptych.nn.block import BlockConfig, build_blocks, init_default
from diptych.nn.cache import Cache, KeyValues
from diptych.nn.mask import Layout, causal, padding
from diptych.nn.rotary import rotary


def test_keys_grow_and_rows_are_chosen():
    kv = KeyValues()
    first, more = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 40, 4)
    kv.extend(first, first)
    branch = kv.copy()
    keys, _ = kv.extend(more, more)
    assert torch.equal(keys, torch.cat([first, more], 2))
    assert torch.equal(branch.extend(more[:, :, :1], more[:, :, :1])[0], torch.cat([first, more[:, :, :1]], 2))
    kv.select(torch.tensor([1, 1, 0]))
    assert torch.equal(kv.keys[1], keys[1])
    assert kv.keys.shape[0] == 3


def test_blocks_read_piece_by_piece_what_they_read_at_once():
    torch.manual_seed(0)
    config = BlockConfig(width=16, depth=2, heads=4, kv_heads=2, cross_attention="plain", context_width=8)
    blocks = build_blocks(config)
    init_default(blocks)
    x, context, positions = torch.randn(3, 6, 16), torch.randn(3, 5, 8), torch.arange(6).expand(3, -1)
    turns = rotary(positions, 4)
    whole = x
    for block in blocks:
        whole = block(whole, causal().plan(Layout.plain(6, x.device)), context, rotary=turns)
    cache, found = Cache(2), []
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        query, key = cache.add(positions[:, start:stop])
        plan = causal().plan(query, key)
        y = x[:, start:stop]
        for block, layer in zip(blocks, cache.layers, strict=True):
            y = block(y, plan, context, None, rotary=rotary(positions[:, start:stop], 4), cache=layer)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), whole)


def test_padding_in_the_cache_is_seen_by_none():
    cache = Cache(1)
    cache.add(torch.arange(3).expand(2, -1), torch.tensor([3, 1]))
    assert cache.ragged
    query, key = cache.add(torch.tensor([[3], [1]]))
    allowed = (causal() & padding()).plan(query, key).allowed
    assert allowed[:, 0, 0].tolist() == [[True] * 4, [True, False, False, True]]
    cache.select(torch.tensor([1]))
    assert cache.copy().length == 4
