import torch

from diptych.recipes import discrete_vae


def test_the_paper_has_32_by_32_of_8192_codes():
    with torch.device("meta"):
        codec = discrete_vae.paper().model.build()
    assert (codec.grid, codec.codebook_size) == ((32, 32), 8192)
