import pytest
import torch

from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import CheckpointError, ConfigError
from diptych.core.image_format import ImageFormat
from diptych.data.dataset import Dataset
from diptych.models.language_model import LanguageModelConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.train.parts import divided, field_of, fill_part, fitted, with_part
from tests.models.small_blip2 import small_blip2
from tests.train.locked import small
from tests.train.staged import FORMAT, LANGUAGE, language_run, prefix_run


def _folder(path, config, data):
    torch.manual_seed(1)
    model = config.build(Dataset.open(data).tokenizer().vocab_size)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    save_pretrained(path, model, Dataset.open(data).tokenizer().with_context_length(config.context_length))
    return model


def test_a_language_model_becomes_the_language_of_another(data, tmp_path, capsys):
    given = _folder(tmp_path / "lm", language_run().model, data)
    model = prefix_run().model.build(given.vocab_size)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    fill_part(model, "language", str(tmp_path / "lm"))
    for name, tensor in model.state_dict().items():
        if name.startswith("language."):
            assert torch.equal(tensor, given.state_dict()[name])
        else:
            assert torch.equal(tensor, before[name])
    assert "language begins as language of" in capsys.readouterr().err


def test_a_clip_tower_comes_with_its_settings_and_its_unread_projection(data, tmp_path, capsys):
    clip = small().replace(image_format=ImageFormat(resolution=8, mean=(0.1, 0.2, 0.3)), embed_dim=12)
    given = _folder(tmp_path / "clip", clip, data)
    config = with_part(prefix_run().model, "image_tower", clip, "image_tower")
    assert (config.image, config.image_format, config.embed_dim) == (clip.image, clip.image_format, 12)
    model = config.build(20)
    fill_part(model, "image_tower", str(tmp_path / "clip"))
    for name, tensor in given.image_tower.state_dict().items():
        assert torch.equal(model.image_tower.state_dict()[name], tensor)
    larger = config.replace(image_format=config.image_format.replace(resolution=16)).build(20)
    fill_part(larger, "image_tower", str(tmp_path / "clip"))  # positions are interpolated
    assert len(larger.image_tower.position_embed) == 17
    capsys.readouterr()
    del model.image_tower.projection
    fill_part(model, "image_tower", f"{tmp_path / 'clip'}#image_tower")
    assert "left out, since nothing here reads it: projection.weight" in capsys.readouterr().err


def test_what_does_not_fit_is_named(data, tmp_path):
    _folder(tmp_path / "lm", language_run().model, data)
    model = prefix_run().model.build(7)
    with pytest.raises(CheckpointError, match=r"token_embed.weight is \(\d+, 16\) there and \(7, 16\) here"):
        fill_part(model, "language", str(tmp_path / "lm"))
    with pytest.raises(ConfigError, match=r"got 'langage'\. It has: image_tower, connector, language"):
        fill_part(model, "langage", str(tmp_path / "lm"))
    with pytest.raises(ConfigError, match=r"a part 'connector'; the one in .* has: language\. Name it"):
        fill_part(model, "connector", str(tmp_path / "lm"))
    mine, theirs = {"a": torch.zeros(2), "b": torch.zeros(2)}, {"a": torch.zeros(2), "c": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="missing: b; not known here: c"):
        fitted(mine, theirs, "parts.x")


def test_a_shorter_context_has_the_first_places_of_a_longer_one():
    long = torch.randn(9, 4)
    state, left = fitted({"position_embed": torch.zeros(5, 4)}, {"position_embed": long}, "parts.language")
    assert torch.equal(state["position_embed"], long[:5])
    assert left == []
    with pytest.raises(CheckpointError, match="context"):
        fitted({"position_embed": torch.zeros(12, 4)}, {"position_embed": long}, "parts.language")


def test_the_second_stage_of_blip2_asks_with_the_first_ones_queries(data, tmp_path, capsys):
    first = small_blip2(image_format=FORMAT, image=VisionTransformerConfig(patch_size=4, width=16, depth=1, heads=2))
    given = _folder(tmp_path / "first", first, data)
    config = with_part(prefix_run().model, "connector", first, "qformer")
    assert config.connector == first.qformer
    model = config.build(20)
    fill_part(model, "connector", f"{tmp_path / 'first'}#qformer")
    for name, tensor in model.connector.state_dict().items():
        assert name.startswith("proj.") or torch.equal(tensor, given.qformer.state_dict()[name])
    said = capsys.readouterr().err
    assert "blocks.0.norm_text.bias" in said
    assert "begun anew: proj.bias, proj.weight" in said
    wider = config.replace(connector=first.qformer.replace(queries=5)).build(20)
    with pytest.raises(CheckpointError, match=r"queries is \(4, 16\) there and \(5, 16\) here"):
        fill_part(wider, "connector", f"{tmp_path / 'first'}#qformer")


def test_names_of_parts():
    assert divided("a/b#tower", "image_tower") == ("a/b", "tower")
    assert divided("a/b", "image_tower") == ("a/b", "image_tower")
    assert divided("a/b#", "codec") == ("a/b", "")
    assert field_of(TwoTowerConfig(), "text_tower") == "text"
    assert field_of(LanguageModelConfig(language=LANGUAGE), "language") == "language"
    with pytest.raises(ConfigError, match=r"got 'connector' of a TwoTower\. Its settings are: image_format"):
        field_of(TwoTowerConfig(), "connector")
