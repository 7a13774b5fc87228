import copy
from dataclasses import replace

import pytest
import torch

from diptych.objectives.blip import BlipPretrainingConfig
from diptych.train.sight import mismatched
from tests.models.small_fusion import small_blip
from tests.models.writers import stirred, text_batch
from tests.objectives.fusion_ranks import objective_of
from tests.objectives.query_ranks import whole
from tests.reference.momentum import smoothed


def contract_model():
    return stirred(small_blip())


def test_writing_equals_plain_loops():
    objective = objective_of("blip", contrast=0.0, matching=0.0)
    twin, batch = copy.deepcopy(objective.model), whole().slice(0, 4)
    losses = objective(batch)
    losses.total.backward()
    each, plain = [], []
    for i, n in enumerate(batch.lengths.tolist()):
        one = batch.slice(i, i + 1)
        logits = twin.logits(twin.predict(one).hidden)
        for place, target in enumerate(one.tokens[0, 1:n].tolist()):
            each.append(smoothed(logits[place], target, 0.1))
            plain.append(smoothed(logits[place], target, 0.0).item())
    expected = torch.stack(each).mean()
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    assert losses.parts["nll"].item() == pytest.approx(sum(plain) / len(plain), abs=1e-5)
    theirs = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():
        if theirs[name].grad is not None:
            torch.testing.assert_close(p.grad, theirs[name].grad, atol=2e-5, rtol=1e-3, msg=name)


def test_a_table_of_image_tokens_gives_the_same_loss():
    batch, objective = whole(), objective_of("bare")
    cached = replace(batch, images=None, cached={"image": objective.model.image_vectors(batch.images)})
    assert objective(cached).total.item() == pytest.approx(objective(batch).total.item(), abs=1e-5)
    assert mismatched(cached) is not None


@pytest.mark.slow
def test_it_learns_a_few_pairs_by_heart():
    torch.manual_seed(0)
    objective = BlipPretrainingConfig(queue=12, momentum=0.9, alpha=0.2, writing_smoothing=0).build(
        small_blip().build(30)
    )
    batch = text_batch((5, 4, 7, 3, 4, 6))
    optimizer = torch.optim.Adam(objective.model.parameters(), 1e-2)
    first = objective(batch)
    for _ in range(200):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        objective.after_step()
    assert losses.parts["foreseen"] > 0.95
    assert losses.parts["matched"] > 0.95
    assert losses.parts["contrast"] < first.parts["contrast"]
