"""Finding a study by its file's name."""

from typing import Any

from diptych import studies as room
from diptych.core.config import override
from diptych.core.folder import Folder
from diptych.studies.study import Study, StudyConfig

STUDIES = Folder(room, StudyConfig, "a study")


def studies() -> dict[str, type[StudyConfig]]:
    """The settings of each study that there is: the files of this folder that hold a StudyConfig."""
    return {name: STUDIES.find(name) for name in STUDIES.names()}


def study(name: str, settings: list[str]) -> Study:
    """The study called `name`, with ``field=value`` settings."""
    config: Any = override(STUDIES.find(name)(), settings)
    assert isinstance(config, StudyConfig)
    return config.build()
