"""What a command says."""

from typing import Any

import pytest

from diptych.cli.main import main


def say(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of ``diptych ARGUMENTS``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err
