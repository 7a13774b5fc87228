import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diptych.core.errors import CheckpointError, ConfigError
from diptych.models.hf_folder import fill_from_folders, read_settings
from diptych.models.hf_language import HFLanguageConfig
from diptych.nn.checkpointing import set_checkpointing

pytest.importorskip("transformers")

from tests.models.hf_models import save_language


def test_settings_are_the_function_alone(tmp_path: Path) -> None:
    save_language("opt", tmp_path, dropout=0.1, layerdrop=0.2)
    settings = json.loads(read_settings(str(tmp_path)))
    assert settings["dropout"] == settings["layerdrop"] == 0
    assert settings["model_type"] == "opt"
    assert not {"architectures", "dtype", "transformers_version"} & settings.keys()


def test_a_folder_named_anew_is_read_anew(tmp_path: Path) -> None:
    save_language("opt", tmp_path / "a")
    save_language("llama", tmp_path / "b")
    first = HFLanguageConfig(path=str(tmp_path / "a"))
    assert json.loads(first.replace(path=str(tmp_path / "b")).settings)["model_type"] == "llama"


@pytest.mark.parametrize("content,message", [("{", "must be a local folder"), ("{}", "must name a model_type")])
def test_what_is_no_folder_of_transformers_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        HFLanguageConfig(path=str(tmp_path))


def test_weights_must_be_whole_and_safe(tmp_path: Path) -> None:
    save_language("llama", tmp_path)
    language = HFLanguageConfig(path=str(tmp_path)).build(30, 16)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("model.norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: model\.norm\.weight"):
        fill_from_folders(language)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="as safetensors"):
        fill_from_folders(language)


def test_their_blocks_are_computed_again_as_ours_are() -> None:
    language = HFLanguageConfig().build(30, 16).train()
    x, places = torch.randn(2, 4, language.width), torch.arange(4)[None]
    grads = []
    for on in (False, True):
        assert set_checkpointing(language, on) == 2
        language.zero_grad()
        language(x, None, places).square().sum().backward()
        grads.append([p.grad.clone() for p in language.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_checkpoint_may_bring_the_weights_instead(tmp_path: Path) -> None:
    save_language("llama", tmp_path)
    config = HFLanguageConfig(path=str(tmp_path))
    filled, other, late = config.build(30, 16), config.build(30, 16), config.build(30, 16)
    fill_from_folders(filled)
    other.load_state_dict(filled.state_dict())
    fill_from_folders(late, fresh=False)
    assert not filled.awaits
    assert not other.awaits
    assert not late.awaits
    assert torch.equal(other.head()[0], filled.head()[0])
    assert not torch.equal(late.head()[0], filled.head()[0])
