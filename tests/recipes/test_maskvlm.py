import torch

from diptych.models.maskvlm import MaskVLMConfig
from diptych.objectives.maskvlm import MutualMaskingConfig
from diptych.recipes import maskvlm


def test_tiny_has_cells_of_eight_pixels_and_hides_ten_of_sixteen():
    run = maskvlm.tiny()
    assert isinstance(run.model, MaskVLMConfig)
    assert isinstance(run.objective, MutualMaskingConfig)
    model = run.model.build(100)
    assert (model.fill_grid(), model.cell, model.prefix) == ((4, 4), 8, 0)
    assert run.objective.patches.count(16) == 10
    assert sum(p.numel() for p in model.parameters()) < 3e6


def test_base_has_the_paper_sizes():
    run = maskvlm.base()
    assert isinstance(run.model, MaskVLMConfig)
    with torch.device("meta"):
        model = run.model.build(30_000)
    assert (model.fill_grid(), model.cell, model.prefix) == ((14, 14), 16, 1)
    assert len(model.image_cross.blocks) == len(model.text_cross.blocks) == len(model.image_decoder.blocks) == 3
    assert isinstance(model.image_in, torch.nn.Identity)  # one width throughout
    assert isinstance(run.objective, MutualMaskingConfig)
    assert (run.objective.patches.rate, run.objective.tokens.rate) == (0.6, 0.3)
    assert run.train.samples_seen == 200_000_000
