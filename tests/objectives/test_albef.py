import copy
from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.albef import AlbefPretrainingConfig
from tests.models.small_fusion import small_albef
from tests.models.writers import stirred, text_batch
from tests.objectives.fusion_ranks import objective_of
from tests.objectives.query_ranks import whole

HALF = TokenMaskingConfig(rate=0.5)


def contract_model():
    return stirred(small_albef())


def hidden_logits(model, batch, i, corrupted):
    """Of every place of one text, alone with its image."""
    n = int(batch.lengths[i])
    features = model.image_features(batch.images[i : i + 1])
    every = torch.arange(n)[None]
    states = model.masked_states(features, corrupted[i : i + 1, :n], torch.tensor([n]), every)[0]
    weight, bias = model.head()
    return states @ weight.T + bias


def test_hidden_words_equal_plain_loops():
    objective = objective_of("albef", contrast=0.0, matching=0.0, masking=HALF)
    twin, teacher, batch = copy.deepcopy(objective.model), copy.deepcopy(objective.average.model), whole()
    losses = objective(batch)
    losses.total.backward()
    given = mask_tokens(batch.tokens, batch.lengths, batch.sample_keys, HALF, twin.mask_id, 30)
    each, plain = [], []
    for i in range(8):
        mine = hidden_logits(twin, batch, i, given.tokens).log_softmax(-1)
        with torch.no_grad():
            soft = hidden_logits(teacher, batch, i, given.tokens).softmax(-1)
        for place in given.masked[i].nonzero()[:, 0].tolist():
            nll = -mine[place, batch.tokens[i, place]]
            each.append(0.6 * nll - 0.4 * (soft[place] * mine[place]).sum())
            plain.append(nll.item())
    assert len(each) > 8
    expected = torch.stack(each).mean()
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    assert losses.parts["mlm"].item() == pytest.approx(sum(plain) / len(plain), abs=1e-5)
    theirs = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():
        if theirs[name].grad is not None:
            torch.testing.assert_close(p.grad, theirs[name].grad, atol=2e-5, rtol=1e-3, msg=name)


def test_hidden_tokens_do_not_leak():
    """With all of them replaced, other words under the masks change what is foreseen by nothing."""
    masking = TokenMaskingConfig(rate=0.5, replaced=1.0, random=0.0)
    objective, batch = objective_of("albef", masking=masking), whole()
    masked = mask_tokens(batch.tokens, batch.lengths, batch.sample_keys, masking, 30, 30).masked
    other = replace(batch, tokens=torch.where(masked, (batch.tokens + 7) % 30, batch.tokens))
    found = []
    for one in (batch, other):
        given = mask_tokens(one.tokens, one.lengths, one.sample_keys, masking, 30, 30)
        features = objective.model.image_features(one.images)
        places = torch.arange(one.tokens.shape[1]).expand(8, -1)
        found.append(objective.model.masked_states(features, given.tokens, one.lengths, places))
    assert torch.equal(*found)


def test_whole_words_need_to_know_where_they_begin():
    objective = objective_of("albef", masking=HALF.replace(unit="word"))
    assert "words" in objective.uses
    with pytest.raises(ConfigError, match=r"unit must be 'token' for batches that do not say where words begin"):
        objective(whole())
    pairs = torch.tensor([[True, True, False, True, False, True, False]] * 8)  # words of two tokens
    assert objective.encode(replace(whole(), word_starts=pairs))["hidden"].max() >= 2


def test_a_text_without_inner_tokens_has_nothing_to_foresee():
    batch = text_batch((2, 2, 2))
    objective = objective_of("albef")
    losses = objective(batch)
    assert losses.parts["mlm"] == 0
    assert losses.total.isfinite()


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    torch.manual_seed(0)
    config = AlbefPretrainingConfig(queue=12, momentum=0.9, alpha=0.2)
    objective = config.build(small_albef().build(30))
    batch = text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam(objective.model.parameters(), 1e-2)
    first = objective(batch)
    for _ in range(250):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        objective.after_step()
    assert losses.parts["foreseen"] > 0.95
    assert losses.parts["matched"] > 0.95
    assert losses.parts["contrast"] < first.parts["contrast"]
