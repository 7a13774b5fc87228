import pytest
import torch

from diptych.core.errors import ConfigError
from diptych.models.painting import Painting
from diptych.nn.diffusion_transformer import DiffusionTransformerConfig
from diptych.nn.draws import happens, normal, uniform
from diptych.nn.noise_schedule import NoiseScheduleConfig
from diptych.nn.samplers import SamplerConfig
from diptych.objectives.diffusion import DiffusionConfig
from tests.models.small_diffusion import small_diffusion
from tests.models.writers import stirred, text_batch
from tests.objectives import diffusion_ranks
from tests.objectives.tiny_model import TinyConfig
from tests.reference import diffusion as plain


def contract_model():
    return stirred(small_diffusion())


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseScheduleConfig(),
        NoiseScheduleConfig(course="scaled_linear", target="epsilon", drawn="uniform"),
        NoiseScheduleConfig(course="cosine", target="v"),
    ],
    ids=lambda s: s.course,
)
def test_equals_plain_loops_in_value_and_gradient(schedule):
    batch, sampler = text_batch(), SamplerConfig(name="euler" if schedule.course == "flow" else "ddim")
    config = small_diffusion(schedule=schedule, sampler=sampler, condition_dropout=0.5)
    objective, twin = DiffusionConfig().build(stirred(config)), stirred(config)
    losses = objective(batch)
    losses.total.backward()
    keys = batch.sample_keys
    dropped = happens(keys, "condition dropped", 0.5).tolist()
    assert len(set(dropped)) == 2
    texts = [None if d else row[:n].tolist() for d, row, n in zip(dropped, batch.tokens, batch.lengths, strict=True)]
    noise = normal(keys, "noise", 3 * 16 * 16).view(3, 3, 16, 16)
    times = twin.schedule.times_at(uniform(keys, "time of noise", 1)[:, 0])
    expected = plain.loss(twin, twin.latents(batch.images), noise, times, texts)
    expected.backward()
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = dict(twin.named_parameters())
    for name, p in objective.model.named_parameters():  # sums in another order
        torch.testing.assert_close(p.grad, wanted[name].grad, atol=1e-5, rtol=1e-3, msg=name)


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():  # sums in another order
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_pieces_have_the_gradient_of_the_whole_batch(micro_batch):
    whole = diffusion_ranks.gradients(0)
    assert float(whole["scale"]) != 1
    same(diffusion_ranks.gradients(micro_batch), whole)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    expected = diffusion_ranks.gradients(0)
    for found in diffusion_ranks.compute_together(tmp_path):
        same(found, expected)


@pytest.mark.slow
def test_some_pairs_are_learnt_by_heart_and_painted():
    """Four plain colours: after some steps the text decides which is painted, and the score says which is which."""
    torch.manual_seed(0)
    colours = torch.tensor([[230, 20, 20], [20, 220, 20], [20, 20, 240], [250, 250, 250]], dtype=torch.uint8)
    batch = text_batch((3, 3, 3, 3), side=8)
    images = colours[:, :, None, None].expand(4, 3, 8, 8).contiguous()
    dit = DiffusionTransformerConfig(width=32, depth=2, heads=2, patch_size=4)
    config = small_diffusion(denoiser=dit, sampler=SamplerConfig(steps=10))
    config = config.replace(image_format=config.image_format.replace(resolution=8))
    objective = DiffusionConfig().build(config.build(30)).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=4e-3)
    many = torch.arange(4).repeat(8)
    found = []
    for n in range(160):
        keys = torch.arange(32) + 32 * n
        errors, _ = objective.model(_rows(batch, images, many), keys)
        optimizer.zero_grad()
        errors.mean().backward()
        optimizer.step()
        found.append(float(errors.detach().mean()))
    assert sum(found[-20:]) < 0.5 * sum(found[:20])
    model = objective.model.eval()
    painted = model.generate_image(batch.tokens, batch.lengths, Painting(guidance=2.0)).float().mean((2, 3))
    assert torch.cdist(painted, colours.float()).argmin(1).tolist() == [0, 1, 2, 3]
    assert model.score(images, batch.tokens, batch.lengths).argmax(1).tolist() == [0, 1, 2, 3]


def _rows(batch, images, which):
    return type(batch)(images=images[which], tokens=batch.tokens[which], lengths=batch.lengths[which])


def test_a_model_that_does_not_denoise_is_refused():
    with pytest.raises(ConfigError, match="must be given a model that denoises"):
        DiffusionConfig().build(TinyConfig().build(10))
