import pytest

from diptych.core.config import from_json, to_json
from diptych.core.errors import ConfigError
from diptych.studies.find import studies, study


def test_the_folder_is_the_list():
    assert "objective_efficiency" in studies()
    assert not {"study", "find", "samples_to_reach"} & studies().keys()


@pytest.mark.parametrize("name", sorted(studies()))
def test_promises(name):
    config = studies()[name]()
    assert from_json(to_json(config)) == config
    built = config.build()
    assert built.config == config
    assert built.summary


def test_settings_are_given_by_name():
    assert study("objective_efficiency", ["seeds=3", "samples_seen=1000"]).config.seeds == 3
    with pytest.raises(ConfigError, match="Did you mean 'objective_efficiency'"):
        study("objective_efficienzy", [])
