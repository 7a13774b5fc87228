"""What a collector is: a source that makes pairs of what people really have, and says of each where it is from.

Pages, subtitled videos, code, documents, databases: each file of this folder reads one of them and yields records (and
rejects, with a reason) like any source, so that packing, curation and training need to know nothing of it. What is
known of a record's origin stands in its meta under ``collected`` (`Provenance`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from diptych.core.config import Config, override, to_dict
from diptych.core.errors import DataError
from diptych.core.folder import Folder
from diptych.core.record import Record
from diptych.data import collect as folder
from diptych.data.sources.source import Source, SourceConfig


class Provenance(Config):
    """Where a record is from.

    collector  what collected it;  rule: by which rule of it ("laion", "obelics", "figure")
    origin     the file or address that it was in;  place: where in it (a line, a page, seconds)
    licence    as the origin states it, an SPDX name where one fits; "": nothing was said
    opt_out    what asks not to be used for training, as found ("noai", "tdm-reservation"); "": nothing
    """

    collector: str
    rule: str = ""
    origin: str = ""
    place: str = ""
    licence: str = ""
    opt_out: str = ""


class NothingToPack(DataError):
    """Raised by `Collector.records` at its end where there was no record, but something else that was written down: no
    mistake. Its words are those of `Collector.next_step`."""


class CollectorConfig(SourceConfig):
    """Base of every collector's settings. `licence`: of what states none itself."""

    abstract: ClassVar[bool] = True
    path: str
    licence: str = ""

    def build(self) -> "Collector":
        """The collector."""
        raise NotImplementedError


class Collector(Source):
    """Yields records whose meta says where they are from."""

    config: CollectorConfig

    def __init__(self, config: CollectorConfig) -> None:
        self.config = config

    @property
    def collector(self) -> str:
        """The collector's name, which is that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def next_step(self) -> str:
        """After `records`: what was written besides them, and what to do with it, for people; "": nothing was."""
        return ""

    def from_here(
        self, record: Record, origin: str, place: str = "", rule: str = "", licence: str = "", opt_out: str = ""
    ) -> Record:
        """The record with its provenance."""
        found = Provenance(
            collector=self.collector,
            rule=rule,
            origin=origin,
            place=place,
            licence=licence or self.config.licence,
            opt_out=opt_out,
        )
        said = {k: v for k, v in to_dict(found).items() if k != "kind" and v}
        return replace(record, meta={**record.meta, "collected": said})


COLLECTORS = Folder(folder, CollectorConfig, "a collector")


def collectors() -> tuple[str, ...]:
    """The collectors that there are: the files of this folder."""
    return COLLECTORS.names()


def collector(name: str, path: str, assignments: Sequence[str] = (), **settings: Any) -> Collector:
    """The collector called `name` over what lies at `path`; `assignments` are settings as on the command line
    (``limits.min_side=100``). Raises ConfigError for an unknown one."""
    config = override(COLLECTORS.find(name)(path=path, **settings), list(assignments))
    assert isinstance(config, CollectorConfig)
    return config.build()


def settings_of(name: str) -> set[str]:
    """The names of a collector's own settings."""
    return set(COLLECTORS.find(name).model_fields) - {"path"}
