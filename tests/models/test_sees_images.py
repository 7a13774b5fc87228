from dataclasses import replace

import torch

from diptych.core.batch import Batch
from diptych.models.captioner import CaptionerConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from tests.models.small_blip2 import small_blip2
from tests.models.writers import stirred, text_batch


def test_features_are_what_is_read_of_the_tower_and_a_table_may_hold_it():
    model, batch = stirred(small_blip2()), text_batch((3, 4))
    tokens = model.reading(model.image_tower, model.normalise(batch.images))
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (2, model.table_width("image"))
    assert torch.equal(model.features_from(vectors), tokens)
    assert torch.equal(model.image_features(batch.images), tokens)
    assert torch.equal(model.features_of(batch), tokens)
    assert torch.equal(model.features_of(replace(batch, images=None, cached={"image": vectors})), tokens)
    assert model.features_of(Batch(tokens=batch.tokens, lengths=batch.lengths)) is None
    none = {name: getattr(batch, name)[:0] for name in ("images", "image_record", "image_ids")}
    assert model.features_of(replace(batch, **none)) is None


def test_a_connector_goes_on_from_what_is_read():
    plain = small_blip2()
    config = CaptionerConfig(
        image_format=plain.image_format, image=plain.image, embed_dim=8, connector=MLPConnectorConfig()
    )
    model, images = stirred(config), text_batch((3, 4)).images
    tokens = model.reading(model.image_tower, model.normalise(images))
    assert torch.equal(model.image_features(images), model.connector(tokens))
