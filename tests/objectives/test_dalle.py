"""DALL-E's loss against its plain form; pieces and ranks; texts and images learnt by heart."""

from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.dalle import Dalle
from diptych.models.painting import Painting
from diptych.nn.draws import happens
from diptych.objectives.dalle import TextThenImageConfig
from diptych.train.accumulate import Accumulator
from tests.models.small_codec import spread
from tests.models.test_dalle import small_dalle, stirred_dalle, texts_of
from tests.models.writers import VOCAB, text_batch
from tests.objectives import code_ranks
from tests.objectives.tiny_model import TinyConfig
from tests.reference import dalle as plain


def contract_model() -> Dalle:
    return stirred_dalle()


@pytest.mark.parametrize("dropping", [0.0, 0.5])
def test_value_and_gradient_are_those_of_all_logits_at_once(dropping):
    batch, found = text_batch((5, 2, 12, 1, 7, 3)), []
    config = TextThenImageConfig(text_weight=1, image_weight=3, text_dropped=dropping)
    dropped = happens(batch.sample_keys, "dropped text", dropping).tolist()
    assert any(dropped) == (dropping > 0)
    for way in ("fast", "plain"):
        model = contract_model()
        if way == "fast":
            losses = config.build(model)(batch)
            total = losses.total
        else:
            total = plain.loss(model, list(texts_of(batch)), model.codes(batch.images).tolist(), dropped, (1, 3))
        total.backward()
        found.append((total.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, grad in found[0][1].items():  # sums in another order
        torch.testing.assert_close(
            grad, found[1][1][name], atol=1e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_without_dropping_it_is_an_eighth_and_seven():
    batch = text_batch((5, 5, 5))
    losses = TextThenImageConfig(text_dropped=0.0).build(contract_model())(batch)
    torch.testing.assert_close(losses.total.detach(), (losses.parts["text"] + 7 * losses.parts["image"]) / 8)
    assert float(losses.count) == 3


def test_only_words_that_bear_loss_count():
    batch = text_batch((5, 5))
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 2] = True
    objective = TextThenImageConfig(text_dropped=0.0).build(contract_model())
    masked = objective(replace(batch, loss_mask=mask)).parts["text"]
    model, codes = objective.model, objective.model.codes(batch.images)
    rows = [plain.states(model, t, c.tolist()) for t, c in zip(texts_of(batch), codes, strict=True)]
    nll = [-model.text_head(r)[1].log_softmax(-1)[t[2]] for r, t in zip(rows, texts_of(batch), strict=True)]
    torch.testing.assert_close(masked, torch.stack(nll).mean().detach())


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_pieces_have_the_gradient_of_the_whole_batch(micro_batch):
    code_ranks.same(code_ranks.gradients("dalle", micro_batch), code_ranks.gradients("dalle", 0))


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    expected = code_ranks.gradients("dalle", 0)
    for found in code_ranks.compute_together("dalle", tmp_path).values():
        code_ranks.same(found, expected)


def learnt(config, objective, batch: Batch, steps: int, lr: float):
    torch.manual_seed(0)
    model = spread(config.build(VOCAB))
    accumulate = Accumulator(objective.build(model).train())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(steps):  # whose draws are new, as in a run
        optimizer.zero_grad()
        accumulate(replace(batch, sample_keys=torch.arange(batch.size) + 1000 * step))
        optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_pairs_are_learnt_by_heart_and_painted_back():
    batch = text_batch((5, 3, 7, 4))
    model = learnt(small_dalle(), TextThenImageConfig(text_dropped=0.0), batch, 120, 1e-2)
    codes = model.codes(batch.images)
    assert len(codes.unique(dim=0)) == 4
    painted = model.generate_codes(batch.tokens, batch.lengths, Painting(top_k=1))
    assert torch.equal(painted, codes)
    scores = model.score(batch.images, batch.tokens, batch.lengths)
    assert scores.argmax(0).tolist() == scores.argmax(1).tolist() == [0, 1, 2, 3]
    assert torch.equal(model.generate_image(batch.tokens, batch.lengths, Painting(top_k=1)), model.codec.paint(codes))


def test_what_it_is_not_for_is_said():
    with pytest.raises(ConfigError, match="must be given a model that reads a text and then codes; got Tiny"):
        TextThenImageConfig().build(TinyConfig().build(10))
    objective = TextThenImageConfig().build(contract_model())
    with pytest.raises(DataError, match="one image and one text a record"):
        objective(replace(text_batch(), images=None))
