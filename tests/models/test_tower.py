import pytest

from diptych.core.errors import ConfigError
from diptych.models.tower import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig


def test_the_bases_are_named_but_never_made():
    assert ImageTowerConfig.abstract
    assert TextTowerConfig.abstract
    with pytest.raises(NotImplementedError):
        ImageTowerConfig().build(32, 8)
    with pytest.raises(NotImplementedError):
        TextTowerConfig().build(100, 8, 8)
    for tower in (ImageTower, TextTower):
        with pytest.raises(TypeError, match="abstract"):
            tower()


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="must have only fields that it knows"):
        ImageTowerConfig(width=3)
