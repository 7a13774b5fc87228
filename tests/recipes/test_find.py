import shutil

import pytest

from diptych.checkpoints.native import save_pretrained
from diptych.core.config import to_json
from diptych.core.errors import CheckpointError, ConfigError
from diptych.data.tokenize import Tokenizer
from diptych.models import sizes
from diptych.recipes.find import recipe, resolve


def test_a_recipe_is_found_by_name_and_overridden():
    base, config = resolve(
        "clip:vit_b32", ["data=some/folder", "train.lr=3e-4", "model.image.width=64", "model.image.heads=1"]
    )
    assert base.recipe == config.recipe == "clip:vit_b32"
    assert (config.data.path, config.train.lr, config.model.image.width) == ("some/folder", 3e-4, 64)
    assert base.train.lr == 5e-4


def test_a_tower_can_be_swapped_by_name():
    _, config = resolve("clip:vit_b32", ["data=x", "model.image=modified_resnet"])
    assert type(config.model.image).__name__ == "ModifiedResNetConfig"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("clip:tyni", ["data=x"], "Did you mean 'clip:tiny'"),
        ("clip:tiny", [], "Add data=DIR"),
        ("clip:tiny", ["data=x", "train.lrr=1"], "Did you mean 'lr'"),
        ("clip:tiny", ["data=x", "model.image=modified_resnt"], "Did you mean 'modified_resnet'"),
    ],
)
def test_mistakes_are_answered(name, settings, words):
    with pytest.raises(ConfigError, match=words):
        resolve(name, settings)


def test_the_name_of_a_recipe_is_its_file_and_function():
    assert recipe("siglip:tiny").recipe == "siglip:tiny"


def test_init_brings_its_own_model_and_tokenizer(tmp_path):
    tokenizer = Tokenizer.train(["a red cup", "a blue cup"], vocab_size=300, context_length=16)
    model = sizes.tiny().replace(embed_dim=64, context_length=16)
    save_pretrained(tmp_path / "given", model.build(tokenizer.vocab_size), tokenizer)
    _, config = resolve("clip:tiny", ["data=x", f"init={tmp_path / 'given'}", "train.lr=1e-5"])
    assert (config.model, config.tokenizer) == (model, str(tmp_path / "given"))
    assert config.train.lr == 1e-5
    _, config = resolve("clip:tiny", ["data=x", f"init={tmp_path / 'given'}", "model.max_logit_scale=50"])
    assert config.model == model.replace(max_logit_scale=50.0)
    with pytest.raises(CheckpointError, match="must be a folder"):
        resolve("clip:tiny", ["data=x", "init=nowhere"])


def test_a_resumed_run_does_not_read_its_init_again(tmp_path):
    tokenizer = Tokenizer.train(["a red cup", "a blue cup"], vocab_size=300, context_length=16)
    model = sizes.tiny().replace(embed_dim=64, context_length=16)
    given, run = tmp_path / "given", tmp_path / "run"
    save_pretrained(given, model.build(tokenizer.vocab_size), tokenizer)
    settings = ["data=x", f"init={given}", "model.max_logit_scale=50"]
    _, began = resolve("clip:tiny", settings, resumed=run)  # nothing there yet: the init decides
    run.mkdir()
    (run / "config.json").write_text(to_json(began))
    shutil.rmtree(given)
    assert resolve("clip:tiny", settings, resumed=run)[1] == began
    (run / "config.json").write_text(to_json(model))
    with pytest.raises(ConfigError, match="must hold the settings of a run"):
        resolve("clip:tiny", settings, resumed=run)
