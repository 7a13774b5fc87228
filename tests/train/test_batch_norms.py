import torch

from diptych.nn.quantizer import VectorQuantizer, VectorQuantizerConfig
from diptych.train.batch_norms import BatchNormAtRest, RunningStatistics, batch_norm_notice, batch_norms
from tests.objectives.tiny_model import TinyConfig

IMAGES = torch.arange(6 * 3 * 64, dtype=torch.uint8).view(6, 3, 8, 8)


def test_what_is_noted_can_be_put_back_and_at_rest_nothing_is_noted():
    model = TinyConfig(batch_norm=True).build(20).train()
    (norm,) = batch_norms(model)
    statistics, before = RunningStatistics(model), norm.running_mean.clone()
    with BatchNormAtRest(model):
        at_rest = model.encode_image(IMAGES)
    assert torch.equal(norm.running_mean, before)
    assert torch.equal(model.encode_image(IMAGES), at_rest)
    assert not torch.equal(norm.running_mean, before)
    assert norm.num_batches_tracked == 1
    statistics.restore(torch.tensor(0.0))
    assert norm.num_batches_tracked == 1
    for skipped in (None, torch.tensor(1.0)):
        norm.running_mean.add_(1)
        statistics.restore(skipped)
        assert torch.equal(norm.running_mean, before)
    assert norm.num_batches_tracked == 0


def test_pieces_of_batch_norms_are_said():
    model = TinyConfig(batch_norm=True).build(20).train()
    assert "1 batch norm layers take their statistics over 5 pairs" in batch_norm_notice(model, 5, 10)
    assert batch_norm_notice(model, 0, 10) is None
    assert batch_norm_notice(model.eval(), 5, 10) is None  # frozen: it takes the running ones
    assert batch_norm_notice(TinyConfig().build(20).train(), 5, 10) is None


def test_what_codebooks_noted_is_forgotten_with_a_step_that_does_not_count():
    codebook = VectorQuantizer(VectorQuantizerConfig(codes=4, width=2, update="ema")).train()
    statistics, before = RunningStatistics(codebook), codebook.codebook.clone()
    for skipped in (None, torch.ones(())):
        codebook(torch.randn(1, 3, 2))
        statistics.restore(skipped)
        codebook.after_step()
        assert torch.equal(codebook.codebook, before)
    codebook(torch.randn(1, 3, 2))
    statistics.restore(torch.zeros(()))  # this one counts
    codebook.after_step()
    assert not torch.equal(codebook.codebook, before)
