import pytest

from diptych.core.errors import ConfigError
from diptych.recipes.find import recipe, resolve


def test_a_recipe_is_found_by_name_and_overridden():
    base, config = resolve("clip:vit_b32", ["data=some/folder", "train.lr=3e-4", "model.image.width=64", "model.image.heads=1"])
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
