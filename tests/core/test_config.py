import os
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from diptych.core import config as module
from diptych.core.config import Config, find_kind, flatten, from_dict, from_json, override, to_dict, to_json
from diptych.core.errors import ConfigError


class Family(Config):
    abstract: ClassVar[bool] = True


class One(Family):
    width: int = Field(8, ge=1)
    names: tuple[str, ...] = ()


class Whole(Config):
    part: Family = One()
    rate: float | None = None
    mode: Literal["a", "b"] = "a"
    path: str = ""
    maybe: One | None = None


@pytest.fixture(autouse=True)
def trust(monkeypatch):
    monkeypatch.setenv("DIPTYCH_TRUST", "tests")


def test_a_config_survives_its_json_form():
    config = Whole(part=One(width=3, names=("x", "y")), rate=3e-4)
    assert from_json(to_json(config)) == config
    assert isinstance(from_dict(to_dict(config)).part, One)


def test_a_field_of_what_is_not_there_yet_makes_it():
    assert override(Whole(), ["maybe.width=3"]).maybe == One(width=3)
    assert override(Whole(maybe=One()), ["maybe=null"]).maybe is None


def test_override_reaches_every_leaf_and_checks_it():
    config = override(Whole(), ["part.width=16", "rate=1e-3", "mode=b", 'part.names=["k"]', "path=17"])
    assert (config.part.width, config.rate, config.mode, config.part.names, config.path) == (
        16,
        1e-3,
        "b",
        ("k",),
        "17",
    )
    assert override(config, ["rate=null"]).rate is None


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("part.widht=3", "Did you mean 'width'"),
        ("modes=a", "Did you mean 'mode'"),
        ("part.width=big", "part.width must be a valid integer"),
        ("mode=c", "'a' or 'b'"),
        ("rate", "field.sub=value"),
        ("mode.x=1", "must name a field of a config"),
        ("part.width=0", "must be greater than or equal to 1"),
    ],
)
def test_wrong_overrides_teach(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override(Whole(), [assignment])


class Linked(Config):
    width: int = 8
    heads: int = 4

    @model_validator(mode="after")
    def _divides(self) -> "Linked":
        if self.width % self.heads:
            raise ValueError(f"Linked.width must be a multiple of heads; got {self.width} and {self.heads}.")
        return self


class Holder(Config):
    linked: Linked = Linked()


def test_fields_that_depend_on_each_other_change_together():
    assert override(Holder(), ["linked.width=9", "linked.heads=3"]).linked == Linked(width=9, heads=3)
    with pytest.raises(ConfigError, match=r"^Linked.width must be a multiple of heads; got 9 and 4\.$"):
        override(Holder(), ["linked.width=9"])


def test_unknown_fields_and_untrusted_kinds_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="Did you mean 'rate'"):
        Whole(rat=3)
    monkeypatch.delenv("DIPTYCH_TRUST")
    with pytest.raises(ConfigError, match="trusted package"):
        find_kind(f"{os.__name__}.path")
    with pytest.raises(ConfigError, match="must name a Config"):
        find_kind("diptych.core.config.to_dict")
    with pytest.raises(ConfigError, match="must be JSON"):
        from_json("{")


def test_flatten_names_every_leaf():
    assert flatten(Whole()) == {
        "part": "tests.core.test_config.One",
        "part.width": 8,
        "part.names": [],
        "rate": None,
        "mode": "a",
        "path": "",
        "maybe": None,
    }


def test_configs_are_frozen_and_equal_by_value():
    assert Whole() == Whole()
    with pytest.raises(module.pydantic.ValidationError):
        Whole().rate = 3.0


class Several(Config):
    parts: tuple[Family, ...] = ()


def test_a_list_of_a_family_is_given_by_kind_or_name_and_its_fields_by_number(monkeypatch):
    made = override(Several(), ['parts=[{"kind": "tests.core.test_config.One", "width": 3}, "test_config"]'])
    assert made.parts == (One(width=3), One())
    assert override(made, ["parts.1.width=5"]).parts == (One(width=3), One(width=5))
    for wrong, words in (
        ("parts.2.width=5", "one of the 2 of parts, counted from 0; got 2"),
        ('parts=["test_confg"]', "Did you mean 'test_config'"),
        ("parts.1.width=0", "greater than or equal to 1"),
        ("parts.1.widht=3", "Did you mean 'width'"),
    ):
        with pytest.raises(ConfigError, match=words):
            override(made, [wrong])


class Keeps(Config):
    """Something of which a part is kept elsewhere."""

    name: str = "a"
    elsewhere: dict[str, Any] = Field(default_factory=dict, exclude=True)


def test_what_is_kept_elsewhere_is_not_written():
    assert to_dict(Keeps(elsewhere={"array": object()})) == {"kind": Keeps.kind(), "name": "a"}
