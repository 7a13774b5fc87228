import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Encoded, Tokenizer, TokenizerConfig
from diptych.models import heat_maps
from diptych.models.captioner import CaptionerConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.coca import CoCaConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.efficientnet import EfficientNetConfig
from diptych.models.heat_maps import heat_map, similarity, unit_range
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from tests.reference.legrad import legrad

TEXTS = ["a red circle", "two blue stars and a word"]
SIDE = 32


class _Letters(Tokenizer):
    """A token a letter."""

    def __init__(self) -> None:
        self.config = TokenizerConfig(context_length=16, start_id=1, end_id=2)
        self.seen = self.truncated = 0

    def encode_all(self, texts):
        return [Encoded([1, *(3 + ord(c) % 20 for c in t[:12]), 2], False) for t in texts]


def _stirred(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return Pretrained(model, _Letters())


def _two_towers(image, side=SIDE, resize="squash"):
    torch.manual_seed(0)
    text = TextTransformerConfig(width=16, depth=1, heads=2)
    format = ImageFormat(resolution=side, resize=resize)
    return _stirred(TwoTowerConfig(image=image, text=text, embed_dim=12, image_format=format).build(24))


def _vit(**options):
    return VisionTransformerConfig(**{"width": 16, "depth": 3, "heads": 2, "patch_size": 8, **options})


def _images(n=2, side=SIDE):
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def _expected(grid):
    return unit_range(F.interpolate(grid[:, None], (SIDE, SIDE), mode="bilinear")[:, 0])


@pytest.mark.parametrize("pooling,projection", [("cls", "linear"), ("mean", "linear_bias")])
@pytest.mark.parametrize("own", [False, True])
def test_legrad_is_what_autograd_says_of_explicit_matrices(pooling, projection, own):
    model = _two_towers(_vit(pooling=pooling, projection=projection, norm_pre=pooling == "cls"))
    images, said = _images(), model.embed_text(TEXTS)

    def match(pooled):
        return (F.normalize(pooled, dim=-1) * said).sum(1)

    network = model.model
    expected = legrad(network.image_tower, network.normalise(images), match, own)
    found = heat_maps.heat_maps(model, images, TEXTS, "legrad_blocks" if own else "legrad")
    torch.testing.assert_close(found, _expected(expected), atol=1e-4, rtol=1e-4)
    assert found.min() == 0
    assert found.amax((1, 2)).tolist() == [1, 1]
    one = heat_maps.heat_maps(model, images[1:], TEXTS[1:], "legrad_blocks" if own else "legrad")
    torch.testing.assert_close(one[0], found[1], atol=1e-4, rtol=1e-4)  # images of a batch are apart


def test_the_pooling_by_a_probe_is_attention_too():
    model = _two_towers(_vit(pooling="map", norm_pre=False))
    assert len(heat_maps._attentions(model.model.image_tower)) == 4
    assert heat_maps.heat_maps(model, _images(), TEXTS).amax((1, 2)).tolist() == [1, 1]


def test_grad_cam_by_hand():
    model = _two_towers(ConvNetConfig(widths=(8, 16), depths=(1, 1)))
    images, network = _images(), model.model
    places = network.image_tower.stages(network.normalise(images)).detach().requires_grad_()
    match = (F.normalize(network.image_tower.projection(places.mean((2, 3))), dim=-1) * model.embed_text(TEXTS)).sum()
    grad = torch.autograd.grad(match, places)[0]
    expected = torch.stack(
        [sum(g.mean() * p for g, p in zip(gs, ps, strict=True)) for gs, ps in zip(grad, places, strict=True)]
    )
    found = heat_maps.heat_maps(model, images, TEXTS)
    torch.testing.assert_close(found, _expected(expected.clamp(min=0).detach()), atol=1e-5, rtol=1e-4)


def test_gscorecam_by_hand():
    model = _two_towers(ConvNetConfig(widths=(8, 16), depths=(1, 1)))
    image, network, text = _images(1), model.model, TEXTS[0]
    tower, said = network.image_tower, model.embed_text([text])
    places = tower.stages(network.normalise(image)).detach().requires_grad_()
    match = (F.normalize(tower.projection(places.mean((2, 3))), dim=-1) * said).sum()
    order = torch.autograd.grad(match, places)[0].mean((2, 3))[0].argsort(descending=True)[:5].tolist()
    scores = []
    for channel in order:
        mask = _expected(places[:, channel].detach())
        scores.append(float((F.normalize(tower(network.normalise(image) * mask), dim=-1) * said).sum().detach()))
    weights = (torch.tensor(scores) * network.log_logit_scale.exp()).softmax(0)
    expected = sum(w * places[:, c] for w, c in zip(weights, order, strict=True)).detach()
    found = heat_maps.heat_maps(model, image, [text], "gscorecam", channels=5)
    torch.testing.assert_close(found, _expected(expected.clamp(min=0)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "image,side",
    [
        (ModifiedResNetConfig(stem_width=4, depths=(1, 1, 1, 1)), 64),
        (EfficientNetConfig(widths=(8, 8), depths=(1, 1), kernels=(3, 3), strides=(1, 2), expansions=(1, 2)), 32),
        (_vit(), 32),
        (_vit(pooling="mean"), 32),
    ],
    ids=["resnet", "efficientnet", "cls", "mean"],
)
def test_every_tower_has_a_map_of_channels(image, side):
    model = _two_towers(image, side)
    images = _images(2, side)
    before = model.model.embed_image(images)
    with heat_maps._last_map(model.model.image_tower) as last:
        match = similarity(model, images.float().requires_grad_(), TEXTS)
    assert torch.autograd.grad(match.sum(), last[0])[0].abs().sum() > 0
    found = heat_maps.heat_maps(model, images, TEXTS, "gradcam")
    assert found.shape == (2, side, side)
    assert found.isfinite().all()
    assert torch.equal(model.model.embed_image(images), before)
    assert all(p.grad is None for p in model.model.parameters())


@pytest.mark.parametrize("kind,pooling", [("vit", "cls"), ("siglip_vision_model", "pooler"), ("dinov2", "mean")])
def test_towers_of_transformers_have_one_too(tmp_path, kind, pooling):
    pytest.importorskip("transformers")
    from diptych.models.hf_folder import fill_from_folders
    from diptych.models.hf_tower import HFImageTowerConfig
    from tests.models.hf_models import save_encoder

    save_encoder(kind, tmp_path, image_size=32, patch_size=8)
    model = _two_towers(HFImageTowerConfig(path=str(tmp_path), pooling=pooling))
    fill_from_folders(model.model)
    assert heat_maps.default_method(model) == "gradcam"
    tower = model.model.image_tower
    with heat_maps._last_map(tower) as last:
        match = similarity(model, _images().float().requires_grad_(), TEXTS)
    assert last[0].shape == (2, 16 + tower.prefix, 32)
    assert torch.autograd.grad(match.sum(), last[0])[0][:, tower.prefix :].abs().sum() > 0
    assert heat_maps.heat_maps(model, _images(), TEXTS).isfinite().all()


def _writers():
    decoder, format = BlockConfig(width=16, depth=1, heads=2), ImageFormat(resolution=SIDE, resize="squash")
    shared = {"image": _vit(depth=2), "image_format": format, "context_length": 16}
    language = CausalTransformerConfig(width=16, depth=1, heads=2, cross_attention="plain")
    torch.manual_seed(0)
    return [
        _stirred(CaptionerConfig(**shared, language=language).build(24)),
        _stirred(
            CoCaConfig(**shared, text=decoder, decoder=decoder, embed_dim=12, queries=3, pooler_heads=2).build(24)
        ),
    ]


def test_models_that_write_are_asked_for_log_p():
    for model in _writers():
        found = heat_maps.heat_maps(model, _images(), TEXTS)
        assert found.amax((1, 2)).tolist() == [1, 1]
        assert found.isfinite().all()
    writes = _writers()[0]
    tokens, lengths = writes.tokenizer.batch(TEXTS)
    likely = writes.model.log_likelihood(_images(), tokens, lengths).diagonal()
    torch.testing.assert_close(similarity(writes, _images().float(), TEXTS), likely)


def test_similarity_is_the_score():
    model = _two_towers(_vit())
    tokens, lengths = model.tokenizer.batch(TEXTS)
    scores = model.model.score(_images(), tokens, lengths).diagonal()
    torch.testing.assert_close(similarity(model, _images().float(), TEXTS), scores)


def test_a_map_for_a_notebook_lies_on_the_image_as_it_is():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 100, 3), dtype=np.uint8))
    for resize in ("squash", "pad", "crop"):
        model = _two_towers(_vit(), resize=resize)
        found = heat_map(model, picture, TEXTS[0])
        assert found.shape == (40, 100)
        assert 0 <= found.min() <= found.max() <= 1
        outside = np.concatenate([found[:, :25], found[:, 75:]], 1)
        assert (outside == 0).all() == (resize == "crop")
    assert heat_map(model, picture, TEXTS[0], "gradcam").max() > 0


def test_errors_say_what_to_do():
    conv = _two_towers(ConvNetConfig(widths=(8,), depths=(1,)))
    assert heat_maps.default_method(conv) == "gradcam"
    assert "legrad needs a transformer of ours" in heat_maps.unmappable(conv, "legrad")
    assert "legrad_blocks needs a dual encoder" in heat_maps.unmappable(_writers()[0], "legrad_blocks")
    from tests.evals import fakes

    with pytest.raises(EvalError, match=r"made of a model with an image tower .*: the model has no image tower"):
        heat_maps.heat_maps(fakes.model(), _images(), TEXTS)
    assert unit_range(torch.full((1, 2, 2), 3.0)).tolist() == [[[0, 0], [0, 0]]]
