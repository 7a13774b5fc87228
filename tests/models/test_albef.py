import pytest
import torch
from safetensors.torch import load, save

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from tests.models.small_fusion import BERT, small_albef
from tests.models.writers import stirred, text_batch


@pytest.mark.parametrize("position", ["pre", "post"])
def test_settings_and_weights_survive(position):
    config = small_albef(text=BERT.replace(depth=1, norm_position=position))
    assert from_json(to_json(config)) == config
    model, again, batch = stirred(config), stirred(config, seed=5), text_batch()
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    assert torch.equal(
        model.match(batch.images, batch.tokens, batch.lengths), again.match(batch.images, batch.tokens, batch.lengths)
    )


def test_the_text_is_read_before_it_looks():
    model, batch = stirred(small_albef()), text_batch((5, 2, 7))
    features, states = model.image_features(batch.images), model.read(batch.tokens, batch.lengths)
    torch.testing.assert_close(
        model.match_states(features, states, batch.lengths),
        model.matching_logits(features, batch.tokens, batch.lengths),
    )
    fused = model.fuse(features, states, batch.lengths)
    other = model.fuse(features.flip(0), states, batch.lengths)
    assert not torch.allclose(fused[0], other[0], atol=1e-3)
    assert not hasattr(model.text.blocks[0], "cross_attention")


def test_the_mask_has_a_row_beyond_the_vocabulary():
    model = stirred(small_albef())
    assert (model.mask_id, model.text.token_embed.num_embeddings, len(model.head()[0])) == (30, 31, 30)
    inside = stirred(small_albef(mask_id=4))
    assert (inside.mask_id, inside.text.token_embed.num_embeddings) == (4, 30)


def test_states_of_some_places_are_those_of_all():
    model, batch = stirred(small_albef()), text_batch((5, 4, 7))
    features, every = model.image_features(batch.images), torch.arange(7).expand(3, -1)
    whole = model.masked_states(features, batch.tokens, batch.lengths, every)
    some = torch.tensor([[1, 3], [2, 0], [6, 1]])
    found = model.masked_states(features, batch.tokens, batch.lengths, some)
    torch.testing.assert_close(found, torch.stack([whole[i, some[i]] for i in range(3)]))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cross_attention must be 'none'"):
        small_albef(text=BERT.replace(cross_attention="plain"))
    with pytest.raises(ConfigError, match="norm_position must be 'pre' or 'post'; got 'swin'"):
        small_albef(text=BERT.replace(norm_position="swin"))
