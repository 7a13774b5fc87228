"""Tests of diptych's own model folder: what was saved is what is loaded, and what was changed is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import diptych
from diptych.checkpoints.native import CONFIG, EMA, WEIGHTS, fill, fingerprint, load, save_pretrained
from diptych.core.errors import CheckpointError
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.pretrained import Pretrained
from tests.checkpoints.tiny import TEXTS, assert_equal_states, clip_config, pixels, siglip_config, trained


@pytest.fixture
def model() -> Pretrained:
    return trained(clip_config())


@pytest.fixture
def folder(model: Pretrained, tmp_path: Path) -> Path:
    save_pretrained(tmp_path / "run" / "model", model.model, model.tokenizer, extra={"samples_seen": 12})
    return tmp_path / "run" / "model"


def test_what_is_saved_is_loaded_to_the_bit(model: Pretrained, folder: Path) -> None:
    for path in (folder, folder.parent, str(folder)):
        back = diptych.load(path)
        assert back.model.config == model.model.config
        assert_equal_states(back.model.state_dict(), model.model.state_dict())
        assert torch.equal(back.embed_text(TEXTS), model.embed_text(TEXTS))
        assert not back.model.training
    assert back.name == "run"
    assert json.loads((folder / CONFIG).read_text())["extra"] == {"samples_seen": 12}


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(2), expected)


def test_importing_diptych_does_not_import_torch() -> None:
    code = "import diptych, sys; assert 'torch' not in sys.modules; print(diptych.__version__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == diptych.__version__
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = diptych.lood


def test_a_run_without_a_result_gives_its_newest_checkpoint(model: Pretrained, tmp_path: Path) -> None:
    for step in (96, 128):
        model.model.log_logit_scale.data.fill_(step / 100)
        save_pretrained(tmp_path / "run" / "checkpoints" / f"{step:012d}", model.model, model.tokenizer)
    assert load(tmp_path / "run").model.log_logit_scale.item() == pytest.approx(1.28)
    assert load(tmp_path / "run" / "checkpoints" / f"{96:012d}").model.log_logit_scale.item() == pytest.approx(0.96)


def test_the_moving_average_is_taken_where_there_is_one(model: Pretrained, tmp_path: Path) -> None:
    state = model.model.state_dict()
    ema = {n: t + 1 if t.is_floating_point() else t for n, t in state.items()}
    save_pretrained(tmp_path / "m", model.model, model.tokenizer, ema=ema)
    assert_equal_states(load(tmp_path / "m").model.state_dict(), ema)
    assert_equal_states(load(tmp_path / "m", weights="ema").model.state_dict(), ema)
    raw = load(tmp_path / "m", weights="raw")
    assert_equal_states(raw.model.state_dict(), state)
    assert raw.fingerprint != load(tmp_path / "m").fingerprint
    (tmp_path / "m" / EMA).unlink()
    with pytest.raises(CheckpointError, match=r"must hold ema\.safetensors"):
        load(tmp_path / "m", weights="ema")


def test_weights_config_and_tokenizer_carry_one_fingerprint(model: Pretrained, folder: Path, tmp_path: Path) -> None:
    print_ = load(folder).fingerprint
    assert len(print_) == 32
    for change in ("weights", "config", "tokenizer"):
        copy = tmp_path / change
        shutil.copytree(folder, copy)
        if change == "weights":
            state = load_file(copy / WEIGHTS)
            state["log_logit_scale"] = state["log_logit_scale"] + 1e-6
            save_file(state, copy / WEIGHTS)
        elif change == "config":
            text = (copy / CONFIG).read_text()
            (copy / CONFIG).write_text(text.replace("quick_gelu", "gelu"))  # loads without complaint otherwise
        else:
            text = (copy / "tokenizer_config.json").read_text()
            (copy / "tokenizer_config.json").write_text(
                text.replace('"canonicalise": "clip"', '"canonicalise": "none"')
            )
        with pytest.raises(CheckpointError, match="were changed since"):
            load(copy)


def test_a_fingerprint_depends_on_name_type_shape_and_bytes() -> None:
    a = torch.arange(6.0)
    states = [{"a": a}, {"b": a}, {"a": a.double()}, {"a": a.view(2, 3)}, {"a": a + 1}, {"a": a.half()}]
    assert len({fingerprint(s) for s in states}) == len(states)
    assert fingerprint({"a": a, "b": a}) == fingerprint({"b": a, "a": a})


def test_another_resolution_interpolates_positions(folder: Path, model: Pretrained) -> None:
    bigger = load(folder, resolution=48)
    assert bigger.model.image_tower.position_embed.shape[0] == 1 + 6 * 6
    assert bigger.model.config.image_format.resolution == 48
    images = pixels(2, 48)
    # towers interpolate by themselves when an image of another size comes: the same function
    torch.testing.assert_close(bigger.model.embed_image(images), model.model.embed_image(images))
    assert torch.equal(bigger.model.image_tower.position_embed[0], model.model.image_tower.position_embed[0])


@pytest.mark.parametrize("kind", ["resnet", "siglip"])
def test_other_towers_positions_are_interpolated_too(tmp_path: Path, kind: str) -> None:
    resnet = ModifiedResNetConfig(stem_width=4, depths=(1, 1, 1, 1))
    config = clip_config(image=resnet) if kind == "resnet" else siglip_config()
    config = config.replace(image_format=config.image_format.replace(resolution=64))
    model = trained(config)
    save_pretrained(tmp_path / "m", model.model, model.tokenizer)
    images = pixels(2, 96)
    bigger = load(tmp_path / "m", resolution=96)
    torch.testing.assert_close(bigger.model.embed_image(images), model.model.embed_image(images))


def test_tensors_that_do_not_fit_are_named(model: Pretrained) -> None:
    state = dict(model.model.state_dict())
    state["image_tower.norm_pots.weight"] = state.pop("image_tower.norm_post.weight")
    with pytest.raises(CheckpointError, match=r"Missing \(1\).*norm_post.*Did you mean 'image_tower.norm_post.weight'"):
        fill(model.model, state)
    state = dict(model.model.state_dict())
    state["log_logit_scale"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"log_logit_scale: file \(2,\), model \(\)"):
        fill(model.model, state)


def test_what_is_no_model_is_said_in_words(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="diptych convert open_clip"):
        load(tmp_path / "empty")
    (folder / "fingerprint.json").unlink()
    with pytest.raises(CheckpointError, match=r"fingerprint\.json must hold"):
        load(folder)
    (folder / WEIGHTS).write_bytes(b"no")
    with pytest.raises(CheckpointError, match="whole safetensors"):
        load(folder)
    text = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(text | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format_version 1; got 99"):
        load(folder)
    (folder / CONFIG).write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(CheckpointError, match="transformers clip model: diptych convert transformers"):
        load(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match="must be JSON"):
        load(folder)
