import shutil

import pytest

from diptych.checkpoints.native import save_pretrained
from diptych.core.config import to_json
from diptych.core.errors import CheckpointError, ConfigError
from diptych.data.tokenize import Tokenizer
from diptych.models import sizes
from diptych.recipes import find
from diptych.recipes.find import recipe, resolve
from tests.train.locked import small
from tests.train.staged import frozen_run, language_run, prefix_run


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


@pytest.fixture
def staged(monkeypatch):
    """A recipe of two stages: a language model, and one that reads images with it."""
    monkeypatch.setattr(find, "recipes", lambda: {"frozen:tiny": lambda: frozen_run()})
    return "frozen:tiny"


def test_settings_of_a_stage_begin_with_its_name(staged):
    base, config = resolve(staged, ["data=d", "lm.train.lr=0.5", "before.0.train.seed=3", "train.lr=0.25"])
    (lm,) = config.before
    assert (lm.train.lr, lm.train.seed, config.train.lr) == (0.5, 3, 0.25)
    assert (lm.data.path, config.data.path) == ("d", "d")
    assert (lm.recipe, config.recipe) == ("frozen:tiny/lm", "frozen:tiny")
    assert base.before[0].train.lr == 1e-2
    _, config = resolve(staged, ["data=d", "lm.data=other"])
    assert (config.before[0].data.path, config.data.path) == ("other", "d")
    with pytest.raises(ConfigError, match="Did you mean 'lr'"):
        resolve(staged, ["data=d", "lm.train.lrr=1"])


def test_a_part_is_what_its_stage_makes(staged):
    _, config = resolve(staged, ["data=d", "lm.model.language.width=32", "lm.model.language.depth=3"])
    assert (config.model.language.width, config.model.language.depth) == (32, 3)
    assert config.tokenizer == "stage:lm"
    with pytest.raises(ConfigError, match=r"must be what the stage lm makes.*lm\.model\.language"):
        resolve(staged, ["data=d", "model.language.width=32"])
    with pytest.raises(ConfigError, match="must be a run before"):
        resolve(staged, ["data=d", "parts.image_tower=stage:nothing"])


def test_parts_come_from_folders_with_settings_and_tokenizer(tmp_path, staged):
    tokenizer = Tokenizer.train(["a red cup", "a blue cup"], vocab_size=300, context_length=16)
    clip = small().replace(embed_dim=12)
    save_pretrained(tmp_path / "clip", clip.build(tokenizer.vocab_size), tokenizer.with_context_length(8))
    lm = language_run().model
    lm = lm.replace(language=lm.language.replace(depth=2))
    save_pretrained(tmp_path / "lm", lm.build(tokenizer.vocab_size), tokenizer)
    given = [f"parts.image_tower={tmp_path / 'clip'}", f"parts.language={tmp_path / 'lm'}"]
    _, config = resolve(staged, ["data=d", *given])
    assert config.parts == {"image_tower": str(tmp_path / "clip"), "language": str(tmp_path / "lm")}
    assert (config.model.image, config.model.embed_dim) == (clip.image, 12)
    assert config.model.language.depth == 2
    assert config.tokenizer == str(tmp_path / "lm")


def test_a_stage_as_init_fixes_the_parts_but_not_the_pixels(monkeypatch):
    first = prefix_run().replace(stage="align", train=prefix_run().train.replace(only=("connector",)))
    whole = prefix_run().replace(before=(first,), init="stage:align")
    monkeypatch.setattr(find, "recipes", lambda: {"llava:tiny": lambda: whole})
    _, config = resolve("llava:tiny", ["data=d", "align.model.image.width=32", "model.image_format.resolution=16"])
    assert config.model.image.width == config.before[0].model.image.width == 32
    assert (config.model.image_format.resolution, config.before[0].model.image_format.resolution) == (16, 8)
    with pytest.raises(ConfigError, match=r"model must be what the stage align makes"):
        resolve("llava:tiny", ["data=d", "model.image.width=64"])


def test_a_resumed_stage_does_not_read_its_init_again(tmp_path, monkeypatch):
    tokenizer = Tokenizer.train(["a red cup", "a blue cup"], vocab_size=300, context_length=16)
    lm = language_run().model
    save_pretrained(tmp_path / "lm", lm.build(tokenizer.vocab_size), tokenizer)
    monkeypatch.setattr(find, "recipes", lambda: {"frozen:tiny": lambda: frozen_run()})
    settings = ["data=d", f"lm.init={tmp_path / 'lm'}"]
    run = tmp_path / "run"
    _, began = resolve("frozen:tiny", settings, resumed=run)
    (run / "stages" / "lm").mkdir(parents=True)
    (run / "stages" / "lm" / "config.json").write_text(to_json(began.before[0]))
    shutil.rmtree(tmp_path / "lm")
    assert resolve("frozen:tiny", settings, resumed=run)[1] == began
