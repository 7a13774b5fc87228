"""The one objective of all codecs: its sums, pieces and ranks, and that each codec learns a batch by heart."""

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.codecs.codec import Codec
from diptych.nn.codec_blocks import multiscale_error
from diptych.objectives.codec import CodecObjectiveConfig
from diptych.train.batch_norms import RunningStatistics
from tests.models.codecs.small import KEYS, configs, pictures, small
from tests.objectives.codec_ranks import NAMES, compute_together, steps
from tests.objectives.tiny_model import TinyConfig


def contract_model() -> Codec:
    """What `test_contract.py` builds the objective around."""
    return small("vqvae")


def batch(**more) -> Batch:
    return Batch(images=pictures(), image_record=torch.arange(4), sample_keys=KEYS, **more)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)  # sums over pieces and ranks in another order


@pytest.mark.parametrize("name", sorted(configs()))
def test_the_total_is_the_weighted_sum_of_what_is_logged(name):
    objective = CodecObjectiveConfig(scales=2, pixel_weight=0.5, error="l2").build(small(name)).train()
    out, losses = objective.model(pictures(), KEYS), objective(batch())
    wanted = sum((t.value.mean() * t.weight).item() for t in out.terms.values())
    if out.found is not None:
        pixels = multiscale_error(out.found, out.wanted, 2, squared=True).mean()
        assert losses.parts["l1"] == pytest.approx((out.found - out.wanted).abs().mean().item())
        if not out.rated:
            wanted += 0.5 * pixels.item()
            assert losses.parts["pixels"] == pytest.approx(pixels.item())
    assert ("pixels" in losses.parts) == (out.found is not None and not out.rated)
    assert losses.total.item() == pytest.approx(wanted, rel=1e-5)
    assert losses.count == 4
    assert out.terms.keys() <= losses.parts.keys()
    assert all(isinstance(v, float) for v in objective.health({}).values())


@pytest.mark.parametrize("name", NAMES)
def test_pieces_are_the_whole(name):
    whole, pieces = steps(name), steps(name, micro_batch=2)
    for kind in whole:
        for n, value in whole[kind].items():
            close(pieces[kind][n], value)


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_are_one(tmp_path):
    ranks = compute_together(tmp_path)
    for name in NAMES:
        alone, both = steps(name), [r[name] for r in ranks]
        for n, value in alone["losses"].items():
            close(torch.stack([b["losses"][n] for b in both]).mean(0), value)
        for kind in ("gradients", "state"):
            for n, value in alone[kind].items():
                close(both[0][kind][n], value)
                assert torch.equal(both[0][kind][n], both[1][kind][n]), n


@pytest.mark.parametrize(("name", "part", "below"), [("vqvae_ema", "l1", 0.5), ("discrete_vae", "nll", None)])
def test_a_batch_is_learnt_by_heart(name, part, below):
    objective = CodecObjectiveConfig().build(small(name)).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    found = []
    for step in range(60):
        optimizer.zero_grad()
        losses = objective(Batch(images=pictures(), sample_keys=KEYS + 10 * step))
        losses.total.backward()
        optimizer.step()
        objective.after_step()
        found.append(losses.parts[part].item())
    assert found[-1] < (found[0] - 0.05 if below is None else below * found[0])


def test_a_pass_that_only_measured_is_forgotten():
    objective = CodecObjectiveConfig().build(small("vqvae_ema")).train()
    before = {n: t.clone() for n, t in objective.state_dict().items()}
    statistics = RunningStatistics(objective)
    objective(batch())
    statistics.restore()
    objective.after_step()
    assert all(torch.equal(t, before[n]) for n, t in objective.state_dict().items())


def test_several_images_a_record_share_its_key():
    objective = CodecObjectiveConfig().build(small("autoencoder_kl")).train()
    two = Batch(
        images=pictures(),
        image_record=torch.tensor([0, 0, 1, 1]),
        image_position=torch.zeros(4, dtype=torch.int64),
        sample_keys=KEYS[:2],
        sample_ids=KEYS[:2],
    )
    assert objective(two).total == objective(Batch(images=pictures(), sample_keys=KEYS[[0, 0, 1, 1]])).total


def test_mistakes_are_answered():
    with pytest.raises(ConfigError, match="must be given an image codec"):
        CodecObjectiveConfig().build(TinyConfig().build(20))
    with pytest.raises(DataError, match="this batch has none"):
        CodecObjectiveConfig().build(small("vqvae"))(Batch(sample_keys=KEYS))
