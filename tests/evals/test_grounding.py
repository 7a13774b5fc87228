import numpy as np
import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError, EvalError
from diptych.core.image_format import ImageFormat
from diptych.evals.grounding import GroundingConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.heat_maps import heat_map
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.evals import fakes, place_models
from tests.evals.contract import Case


def _run(model, split, artifacts=False, **settings):
    return GroundingConfig(**settings).build().run(model, split, artifacts)


@pytest.mark.parametrize("method", ["auto", "gscorecam"])
def test_a_model_that_looks_where_it_should_points_there(method):
    found = _run(place_models.model(), place_models.squares(30), method=method).metrics
    assert found["pointing"].value == 1
    assert found["energy_inside"].value > 0.9
    assert found["iou"].low > 0.8
    assert found["pointing"].n == 30
    assert found["pointing_above_centre"].low > 0.5
    assert found["pointing_above_other_phrase"].value == 1


def test_a_model_that_is_right_for_a_reason_elsewhere_is_found_here_and_by_no_retrieval():
    split = place_models.squares(40, each=1)
    split._captions = [(split.meta(i)["boxes"][0]["name"],) for i in range(40)]
    honest, moved = place_models.model(), place_models.model(moved=True)
    scores = [RetrievalConfig().build().run(m, split, False).metrics for m in (honest, moved)]
    assert scores[0]["i2t_recall_at_1"] == scores[1]["i2t_recall_at_1"]
    assert scores[0]["i2t_recall_at_1"].value == 1
    found = _run(moved, split).metrics["pointing"]
    assert found.low <= found.chance <= found.high
    assert found.high < _run(honest, split).metrics["pointing"].low


def test_a_model_that_does_not_read_does_not_gain_by_the_phrase():
    found = _run(place_models.model(reads=False), place_models.squares(40)).metrics
    assert found["pointing_above_other_phrase"].value == pytest.approx(0, abs=1e-9)
    assert not found["pointing_above_other_phrase"].above_chance
    assert "pointing_above_other_phrase" not in _run(place_models.model(), place_models.squares(5, each=1)).metrics


def test_the_centre_is_a_strong_baseline_where_things_are_in_it():
    found = _run(place_models.model(), place_models.squares(12, each=1, centred=True)).metrics
    assert found["centre"].value == 1
    assert found["centre"].above_chance
    assert found["pointing_above_centre"].value == 0


def test_a_vision_transformer_that_sees_one_patch_points_at_it():
    torch.manual_seed(0)
    tower = VisionTransformerConfig(width=16, depth=2, heads=2, patch_size=8, pooling="mean", norm_pre=False)
    format = ImageFormat(resolution=32, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    text = TextTransformerConfig(width=16, depth=1, heads=2)
    network = TwoTowerConfig(image=tower, text=text, embed_dim=8, image_format=format).build(16).eval()
    network.embed_text = lambda tokens, lengths: torch.eye(8)[:1]
    vit = network.image_tower
    with torch.no_grad():  # attention can bring a signal from the tenth place, and the score is that signal
        vit.position_embed.zero_()
        vit.position_embed[10, 0] = 8.0
        vit.projection.weight.zero_()
        for block in vit.blocks:
            block.attention.v_proj.weight.zero_()
            block.attention.v_proj.weight[:, 0] = 1.0
            block.attention.out_proj.weight.zero_()
            block.attention.out_proj.weight[1, :] = 0.1
            block.mlp.fc_2.weight.zero_()
        vit.projection.weight[0, 1] = 1.0
        vit.projection.weight[1, 2] = 1.0
    model = fakes.Pretrained(network, fakes.FakeTokenizer())
    image = torch.randint(100, 156, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    y, x = np.unravel_index(heat_map(model, image, "thing 1").argmax(), (64, 64))
    assert (y // 16, x // 16) == (2, 2)  # the tenth of four times four patches


def test_a_tolerance_is_reported_beside_the_strict_game():
    split = place_models.squares(60)
    plain, near = _run(place_models.model(moved=True), split), _run(place_models.model(moved=True), split, tolerance=4)
    assert plain.metrics["pointing"] == near.metrics["pointing"]
    within = near.metrics["pointing_within_4px"]
    assert within.value > near.metrics["pointing"].value
    assert within.chance > near.metrics["pointing"].chance


def test_templates_and_settings_are_said():
    result = _run(place_models.model(), place_models.squares(8), True, template="a picture of {}", pictures=2)
    assert (result.settings["method"], result.settings["phrases"], result.settings["images"]) == ("gradcam", 16, 8)
    assert from_json(to_json(result)).figures == result.figures
    assert [f.title for f in result.figures][2:] == ["Best maps", "Worst maps"]
    assert len(result.figures[2].pictures) == 2
    table = result.items["phrases"]
    assert table.keys[:2] == (f"{0:032x}#0", f"{0:032x}#1")
    assert len(result.items["phrases_of_several"].keys) == 16


def test_broken_images_and_records_without_boxes_are_left_out():
    split = place_models.squares(10)
    split.images[3] = b"broken"
    split._meta[4] = {}
    result = _run(place_models.model(), split)
    assert result.metrics["pointing"].n == 8
    assert (result.settings["without_boxes"], result.settings["broken_images"]["count"]) == (1, 1)


def test_errors_and_what_does_not_suit():
    model, split = place_models.model(), place_models.squares(4)
    assert GroundingConfig().unsuited(model, split) == ""
    assert GroundingConfig().unsuited(model, fakes.pairs(4)) == "its records have no boxes in their meta"
    assert GroundingConfig().unsuited(fakes.model(fakes.Scores), split) == "the model has no image tower"
    assert "needs a transformer of ours" in GroundingConfig(method="legrad").unsuited(model, split)
    with pytest.raises(EvalError, match="one where the model has no image tower"):
        _run(fakes.model(), split)
    with pytest.raises(EvalError, match=r"images with boxes; got 0 of 4 with boxes, and 0 broken.*scenes corpus"):
        _run(model, fakes.pairs(4))
    with pytest.raises(ConfigError, match="threshold"):
        GroundingConfig(threshold=0)


def contract_cases():
    def case(perfect, n):
        return Case(place_models.model(moved=not perfect), place_models.squares(n, each=1), {}, n)

    return {"places": case}
