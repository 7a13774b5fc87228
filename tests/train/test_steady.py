import math

import pytest
import torch

from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.objective import Losses, Objective
from diptych.train.steady import Outcomes, Reported, judge
from tests.objectives.tiny_model import TinyConfig, tiny_batch

CPU = torch.device("cpu")


def step() -> tuple[Objective, Losses]:
    objective = ContrastiveConfig().build(TinyConfig().build(20))
    losses = objective(tiny_batch())
    losses.total.backward()
    return objective, Losses(losses.total.detach(), losses.count, losses.parts)


def test_a_sound_step_is_told_as_it_is():
    objective, losses = step()
    verdict = judge(objective, losses, Reported(3, 2e12, False, True))
    outcomes = Outcomes(CPU)
    outcomes.put(7, verdict, 0.25)
    (told,) = outcomes.take()
    plain = math.sqrt(sum(float(p.grad.double().square().sum()) for p in objective.parameters()))
    assert verdict.skipped == 0
    assert verdict.norm.item() == pytest.approx(plain, rel=1e-5)
    assert (told.step, told.wait_s, told.skipped, told.not_finite) == (7, 0.25, False, ())
    assert told.reported == Reported(3, 2e12, False, True)
    assert told.values["loss"] == losses.total.item()
    assert told.values["i2t"] == losses.parts["i2t"].item()
    assert told.values["grad_norm"] == verdict.norm.item()
    assert list(told.values) == ["loss", *losses.parts, "grad_norm"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_or_a_loss_that_is_not_finite_is_named(bad):
    objective, losses = step()
    objective.model.token_embed.weight.grad[0, 0] = bad
    outcomes = Outcomes(CPU)
    outcomes.put(0, judge(objective, losses, Reported()), 0.0)
    (told,) = outcomes.take()
    assert told.skipped
    assert told.not_finite == ("token_embed.weight",)
    objective, losses = step()
    verdict = judge(objective, losses._replace(total=torch.tensor(bad)), Reported())
    assert verdict.skipped == 1
    outcomes.put(1, verdict, 0.0)
    (told,) = outcomes.take()
    assert told.skipped
    assert told.not_finite == ()


def test_a_delay_is_counted_in_steps_and_can_be_caught_up_with():
    objective, losses = step()
    verdict = judge(objective, losses, Reported())
    outcomes = Outcomes(CPU)
    outcomes.lag = 2
    heard = []
    for n in range(5):
        outcomes.put(n, verdict, 0.0)
        heard.append([o.step for o in outcomes.take()])
    assert heard == [[], [], [0], [1], [2]]
    assert outcomes.idle()
    assert [o.step for o in outcomes.take(everything=True)] == [3, 4]
    assert outcomes.take(everything=True) == []


@pytest.mark.gpu
def test_a_steady_step_waits_for_nothing_on_a_gpu():
    device = torch.device("cuda")
    objective = ContrastiveConfig().build(TinyConfig().build(20)).to(device)
    batch = tiny_batch().to(device)
    outcomes = Outcomes(device)
    for n in range(6):
        if n == 2:  # kernels are loaded by now
            torch.cuda.set_sync_debug_mode("error")
        try:
            losses = objective(batch)
            losses.total.backward()
            outcomes.put(n, judge(objective, losses, Reported(truncated=n)), 0.0)
            objective.zero_grad(set_to_none=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        heard = outcomes.take()
        assert [o.reported.truncated for o in heard] == ([n - 2] if n >= 2 else [])
    assert [o.step for o in outcomes.take(everything=True)] == [4, 5]
