from diptych.recipes import autoencoder_kl, discrete_vae, vqvae


def test_small_codecs_see_alike_and_have_the_same_grid():
    codecs = [m.tiny().model.build() for m in (vqvae, discrete_vae, autoencoder_kl)]
    assert {c.grid for c in codecs} == {(8, 8)}
    assert {c.config.image_format for c in codecs} == {vqvae.SEES}


def test_the_papers_sizes():
    assert vqvae.chameleon().model.convs.stride == 16
    assert vqvae.chameleon().model.quantizer.codes == 8192
    assert vqvae.vqgan_f16().model.convs.attention == (4,)
