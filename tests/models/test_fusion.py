import math

import pytest
import torch

from diptych.models.convnet import ConvNetConfig
from tests.models.small_fusion import small_albef, small_blip
from tests.models.writers import stirred, text_batch

MODELS = {"blip": small_blip, "albef": small_albef}


@pytest.mark.parametrize("name", MODELS)
def test_score_is_the_cosine_or_the_log_odds(name):
    batch = text_batch((5, 2, 7))
    images = torch.cat([batch.images, 255 - batch.images[:1]])
    model = stirred(MODELS[name]())
    cosines = model.score(images, batch.tokens, batch.lengths)
    torch.testing.assert_close(
        cosines, model.embed_image(images) @ model.embed_text(batch.tokens, batch.lengths).T, atol=1e-6, rtol=1e-5
    )
    judged = stirred(MODELS[name](scored_by="matching")).score(images, batch.tokens, batch.lengths)
    features = model.image_features(images)
    for i in range(4):
        for t in range(3):
            n = batch.lengths[t : t + 1]
            logits = model.matching_logits(features[i : i + 1], batch.tokens[t : t + 1, : int(n)], n)[0]
            assert judged[i, t].item() == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)
    assert not torch.allclose(judged, cosines, atol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_towers_without_cls_are_pooled_by_their_mean(name):
    tower = ConvNetConfig(widths=(8, 12), depths=(0, 0), norm="group")
    model = stirred(MODELS[name](image=tower, image_norm="layer"))
    images = text_batch((3, 3)).images
    features = model.image_features(images)
    assert features.shape == (2, 16, 12)
    pooled = model.image_projection(model.image_norm(features.mean(1)))
    torch.testing.assert_close(model.encode_image(images), torch.nn.functional.normalize(pooled, dim=1))


@pytest.mark.parametrize("name", MODELS)
def test_the_scale_is_held(name):
    model = stirred(MODELS[name]())
    with torch.no_grad():
        model.log_logit_scale.fill_(20)
    model.after_step()
    assert model.log_logit_scale.item() == pytest.approx(math.log(1000))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_that_trains_is_read(name):
    model, batch = stirred(MODELS[name]()), text_batch((5, 2, 7))
    assert model.decay_free() <= dict(model.named_parameters()).keys()
    features = model.image_features(batch.images)
    total = model.matching_logits(features, batch.tokens, batch.lengths).sum()
    total = total + (model.unit_image(features) * model.unit_text(batch.tokens, batch.lengths)).sum()
    total.backward()
    silent = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent <= {"log_logit_scale", "writing_head", "head_bias", "masked_head", "text"}  # text: what writes
