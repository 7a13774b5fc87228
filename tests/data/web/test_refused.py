"""A refusal has a reason for tables and a sentence for people."""

from diptych.data.web.refused import Refused


def test_both() -> None:
    error = Refused("timeout", "it must answer; it did not.")
    assert (error.reason, str(error)) == ("timeout", "it must answer; it did not.")
