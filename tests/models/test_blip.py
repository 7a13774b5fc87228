from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.blip import Blip, BlipCaptioner, BlipComparer
from diptych.models.capabilities import capabilities_of
from tests.models.small_fusion import BERT, small_blip
from tests.models.writers import stirred, text_batch


def test_roles_decide_what_it_can_do():
    kinds = {"all": Blip, "compares": BlipComparer, "writes": BlipCaptioner}
    for role, kind in kinds.items():
        assert type(stirred(small_blip(roles=role))) is kind
    comparer, captioner = (capabilities_of(stirred(small_blip(roles=r))) for r in ("compares", "writes"))
    assert "generate_text" not in comparer
    assert "embed_image" in comparer
    assert "embed_image" not in captioner
    assert "generate_text" in captioner


def test_each_role_has_a_first_token_of_its_own():
    model, batch = stirred(small_blip()), text_batch((5, 4))
    assert (model.match_id, model.write_id, model.text.token_embed.num_embeddings) == (30, 31, 32)
    other = replace(batch, tokens=torch.cat([(batch.tokens[:, :1] + 1) % 30, batch.tokens[:, 1:]], 1))
    features = model.image_features(batch.images)
    judged = [model.matching_logits(features, x.tokens, x.lengths) for x in (batch, other)]
    torch.testing.assert_close(*judged)  # what stands first is not read
    torch.testing.assert_close(model.predict(batch).hidden, model.predict(other).hidden)
    alone = [model.encode_text(x.tokens, x.lengths) for x in (batch, other)]
    assert not torch.allclose(*alone, atol=1e-3)
    known = stirred(small_blip(match_id=28, write_id=29))
    assert known.text.token_embed.num_embeddings == 30


def test_sharing_makes_it_smaller_by_cross_attentions_mlps_and_embeddings():
    shared, apart = (stirred(small_blip(shares=s)) for s in (True, False))
    names = [n for n, _ in apart.named_parameters() if n.startswith("writing_text.")]
    assert any("cross_attention" in n for n in names)
    assert not any("writing_attention" in n for n, _ in apart.named_parameters())
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in apart.parameters())


def test_an_answer_is_written_from_the_questions_states():
    model = stirred(small_blip(text=BERT.replace(width=12)))
    batch, questions = text_batch((4, 3)), text_batch((6, 4), seed=3)
    features = model.image_features(batch.images)
    both = model.answer(features, (questions.tokens, questions.lengths), batch)
    one = model.answer(features[1:], (questions.tokens[1:, :4], questions.lengths[1:]), batch.slice(1, 2))
    torch.testing.assert_close(both.hidden[both.record == 1], one.hidden, atol=1e-5, rtol=1e-5)
    states = model.grounded(features, questions.tokens, questions.lengths)
    assert states.shape == (2, 6, 12)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="cross_attention must be 'none'"):
        small_blip(text=BERT.replace(cross_attention="plain"))
    with pytest.raises(ConfigError, match="norm_position must be 'pre' or 'post'; got 'sub'"):
        small_blip(text=BERT.replace(norm_position="sub"))
    with pytest.raises(ConfigError, match="shares must be true where there is one role"):
        small_blip(shares=False, roles="writes")
