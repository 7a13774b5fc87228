import torch

from diptych.recipes import autoencoder_kl


def test_stable_diffusions_first_stage_has_32_by_32_places_of_four_numbers():
    with torch.device("meta"):
        codec = autoencoder_kl.paper_f8().model.build()
    assert (codec.grid, codec.latent_channels) == ((32, 32), 4)
    assert sum(p.numel() for p in codec.parameters()) == 83_653_863  # as the public one
