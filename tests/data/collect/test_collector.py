"""A collector's records say where they are from, and only what is known of that."""

import pytest

from diptych.core.errors import ConfigError
from diptych.core.record import Record
from diptych.data.collect.collector import Collector, CollectorConfig, collector


class PairsConfig(CollectorConfig):
    def build(self) -> "Pairs":
        return Pairs(self)


class Pairs(Collector):
    def records(self):
        yield self.from_here(Record.pair("a", b"x", "png", ("a dog",), meta={"n": 1}), "page.html", place="line 3")


def test_provenance_is_in_the_meta_beside_what_was_there() -> None:
    record = next(iter(PairsConfig(path="x", licence="CC-BY-4.0").build().records()))
    assert record.meta == {
        "n": 1,
        "collected": {
            "collector": "test_collector",
            "origin": "page.html",
            "place": "line 3",
            "licence": "CC-BY-4.0",
        },
    }


def test_an_unknown_collector_is_named() -> None:
    with pytest.raises(ConfigError, match="a collector must be one of Diptych's; got 'htlm'"):
        collector("htlm", "x")
