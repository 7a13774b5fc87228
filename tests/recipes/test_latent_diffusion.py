import torch

from diptych.nn.unet import UNet
from diptych.recipes import latent_diffusion


def test_the_sizes_are_the_papers():
    with torch.device("meta"):
        unet = latent_diffusion.stable_diffusion().model.build(49408).denoiser
        dit = latent_diffusion.dit_xl().model.build(49408).denoiser
    assert isinstance(unet, UNet)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964  # the published U-Net of 860 M
    assert (dit.width, len(dit.blocks), dit.side) == (1152, 28, 16)
    own = sum(p.numel() for n, p in dit.named_parameters() if "cross_attention" not in n and "context_embed" not in n)
    assert round(own / 1e6) == 674  # 675 M in the paper, whose classes and variances are not here


def test_what_rests_is_codec_and_text():
    for run in (latent_diffusion.stable_diffusion(), latent_diffusion.dit_xl()):
        assert set(run.train.freeze) == {"codec", "text"}
        assert run.model.latent_scale == 1.0  # the codec's latents have unit spread already
    assert latent_diffusion.tiny().train.freeze == ("codec",)
    assert latent_diffusion.tiny_pixels().model.codec is None
