import torch

from diptych.models.crossing import CrossEncoder, PixelDecoder, cells_of, closing_norm, image_of
from diptych.nn.block import BlockConfig
from tests.models.towers import stir
from tests.reference.maskvlm import cross

BLOCKS = BlockConfig(width=16, depth=2, heads=2)


def test_cells_and_images_are_each_others_inverse():
    images = torch.randn(2, 3, 8, 12)
    cells = cells_of(images, 4)
    assert cells.shape == (2, 6, 48)
    assert torch.equal(cells[1, 4].view(3, 4, 4), images[1, :, 4:8, 4:8])  # row by row
    assert torch.equal(image_of(cells, 4, 2), images)


def test_padding_changes_nothing_and_each_row_is_as_by_itself():
    encoder = stir(CrossEncoder(BLOCKS))
    x, context = torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    lengths, seen = torch.tensor([5, 3]), torch.tensor([2, 6])
    found = encoder(x, context, lengths, seen)
    for i in range(2):
        alone = cross(encoder, 2, x[i, : lengths[i]], context[i, : seen[i]])
        torch.testing.assert_close(found[i, : lengths[i]], alone, atol=1e-5, rtol=1e-4)
    other = context.clone()
    other[0, 2:] += 1
    torch.testing.assert_close(encoder(x, other, lengths, seen)[0], found[0])
    other[0, 1] += 1
    assert not torch.allclose(encoder(x, other, lengths, seen)[0], found[0])


def test_pixels_are_of_the_cells_asked_for():
    decoder = stir(PixelDecoder(BLOCKS, 4))
    x = torch.randn(2, 10, 16)
    every = decoder(x, torch.arange(9).expand(2, -1), prefix=1)
    assert every.shape == (2, 9, 48)
    some = decoder(x, torch.tensor([[7, 0], [2, 3]]), prefix=1)
    torch.testing.assert_close(some[0], every[0, [7, 0]])
    torch.testing.assert_close(some[1], every[1, [2, 3]])


def test_blocks_that_end_in_norms_get_none_more():
    assert isinstance(closing_norm(BLOCKS.replace(norm_position="post")), torch.nn.Identity)
    assert isinstance(closing_norm(BLOCKS), torch.nn.LayerNorm)
