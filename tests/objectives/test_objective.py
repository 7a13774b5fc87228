import pytest
import torch

from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from tests.objectives.tiny_model import TinyConfig, tiny_batch


class Plain(Objective):
    def forward(self, batch):
        return Losses(self.model.log_logit_scale * 2, torch.tensor(1.0), {})


def test_an_objective_wraps_its_model_and_couples_nothing_unless_it_says_so():
    objective = Plain(TinyConfig().build(20))
    assert not objective.couples_pairs
    assert objective(tiny_batch()).total.item() == pytest.approx(4.60517, rel=1e-5)
    assert objective.health({}) == {}
    assert any(name.startswith("model.image_tower") for name, _ in objective.named_parameters())
    for call in (lambda: objective.encode(tiny_batch()), lambda: objective.loss({}, tiny_batch())):
        with pytest.raises(NotImplementedError):
            call()


def test_the_base_config_is_abstract():
    assert ObjectiveConfig.abstract
    with pytest.raises(NotImplementedError):
        ObjectiveConfig().build(TinyConfig().build(20))
