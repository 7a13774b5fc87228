import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from diptych.nn.rotary import rotary, rotate


def test_as_llama_turns_them():
    x, positions = torch.randn(2, 3, 5, 8), torch.tensor([[0, 1, 2, 3, 4], [3, 3, 9, 1, 100]])
    r = rotary(positions, 8)
    cos, sin = torch.cat([r.cos, r.cos], -1), torch.cat([r.sin, r.sin], -1)
    theirs, _ = apply_rotary_pos_emb(x, x, cos, sin)
    torch.testing.assert_close(rotate(x, r), theirs)


def test_products_depend_on_distances_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(a: int, b: int) -> torch.Tensor:
        turned = rotate(q, rotary(torch.tensor([[a]]), 8)), rotate(k, rotary(torch.tensor([[b]]), 8))
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(3, 7), product(13, 17))
