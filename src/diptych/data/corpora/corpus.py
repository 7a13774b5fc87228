"""Real data by name: what every corpus is, which there are, and how one becomes a dataset folder, once.

A corpus is a source whose files come from pinned packages (or from nowhere: generated, or inside a library). The folder
is the registry: one file here is one corpus.
"""

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from diptych.core.config import to_dict, to_json
from diptych.core.errors import ConfigError, FetchError
from diptych.core.files import cache_dir, folder_beside, write_atomic, write_json
from diptych.core.folder import Folder
from diptych.core.progress import say
from diptych.core.record import Record
from diptych.data import corpora as folder
from diptych.data.fetch import HOW_TO_INSTALL, Package, fetch_all, has_client
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject, Source, SourceConfig

PROOF = "corpus.json"
"""Lies beside dataset.json: which corpus, version and settings the folder holds, from which packages; its licence."""


class CorpusConfig(SourceConfig):
    """Base of every corpus's settings."""

    abstract: ClassVar[bool] = True

    def build(self) -> "Corpus":
        """The corpus."""
        raise NotImplementedError


class Corpus(Source):
    """A source with a name, a licence and pinned packages. Each record's meta names its split."""

    config: CorpusConfig
    summary: ClassVar[str]
    """What it holds, in a line."""
    origin: ClassVar[str]
    """Where it comes from."""
    licence: ClassVar[str]
    size: ClassVar[str]
    """About how much there is of it."""
    version: ClassVar[str]
    """Raised whenever the same packages and settings would give other records."""
    packages: ClassVar[tuple[Package, ...]] = ()
    packing: ClassVar[PackConfig] = PackConfig(val=0.0)
    """How it is packed, if `get` is not told otherwise. Splits are the records' own, so no share is held out."""

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The name of its file, which is how it is asked for."""
        return type(self).__module__.rpartition(".")[2]

    def classes(self) -> tuple[str, ...]:
        """The names of its classes in the order of class_index, if its records are labelled."""
        return ()

    def templates(self) -> tuple[str, ...]:
        """Prompts with {} for a class, if its records are labelled."""
        return ()

    def answers(self) -> tuple[str, ...]:
        """Every answer that its questions can have, if they have but few."""
        return ()

    def archives(self) -> list[Path]:
        """The packages' archives in the cache, in the order of `packages`; fetched where they are missing."""
        for client in sorted({p.client for p in self.packages}):
            if not has_client(client):
                raise FetchError(
                    f"the corpus {self.name} must be fetched with {'apt-get' if client == 'apt' else client}; got a "
                    f"machine without it. {HOW_TO_INSTALL[client]}. Without it there are: {', '.join(_at_hand())}."
                )
        return fetch_all(self.packages)

    def fingerprint(self, packing: PackConfig) -> str:
        """12 hex digits of everything that decides the dataset: version, packages, settings and packing."""
        pins = ",".join(p.sha256 for p in self.packages)
        text = f"{self.name}\0{self.version}\0{pins}\0{to_json(self.config)}{to_json(packing.replace(jobs=0))}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


class GeneratedCorpusConfig(CorpusConfig):
    """Base of the settings of corpora that are drawn: how many records there will be."""

    abstract: ClassVar[bool] = True
    size: int = Field(default=10_000, ge=1)


class GeneratedCorpus(Corpus):
    """A corpus of which each record is a function of its number, made by Diptych itself: nothing is fetched."""

    config: GeneratedCorpusConfig
    origin: ClassVar[str] = "Diptych itself"
    licence: ClassVar[str] = "CC0-1.0"

    @abstractmethod
    def record(self, i: int) -> Record:
        """Record i."""

    def records(self) -> Iterator[Record | Reject]:
        """Records 0 to size, drawn as they are asked for."""
        for i in range(self.config.size):
            yield self.record(i)

    def count(self) -> int:
        """How many there will be."""
        return self.config.size


CORPORA = Folder(folder, CorpusConfig, "a corpus")


def corpora() -> tuple[str, ...]:
    """The names of all corpora."""
    return CORPORA.names()


def corpus(name: str, **config: Any) -> Corpus:
    """The corpus called `name` with these settings. Errors: ConfigError for an unknown name or setting."""
    return CORPORA.find(name)(**config).build()


def get(name: str, out: str | os.PathLike[str] | None = None, packing: PackConfig | None = None, **config: Any) -> Path:
    """The dataset folder of a corpus, built the first time it is asked for: in the cache, or at `out`.

    `config` are fields of the corpus's config, `packing` replaces how it is packed. Beside the dataset's own files lie
    corpus.json and, for a labelled corpus, classes.txt and templates.txt (one a line) for zero-shot evaluation; for one
    of questions answers.txt.
    Errors: ConfigError for an unknown corpus or setting, or an `out` that holds something else; FetchError.
    """
    source = corpus(name, **config)
    how = packing or source.packing
    mark = source.fingerprint(how)
    target = Path(out) if out is not None else cache_dir("corpora") / f"{name}-{source.version}-{mark}"
    if _holds(target, mark):
        say(f"{name}: is in {target} already")
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            f"the output must be a new folder or this same corpus; got {target}, which holds something else. "
            "Name another, or remove it."
        )
    say(f"{name}: {source.summary}. From {source.origin}. Licence: {source.licence}.")
    source.archives()  # before packing starts its processes, so that a missing client is known at once
    with folder_beside(target) as folder:
        made = folder / "dataset"
        report = pack(source, made, how)
        _write_beside(source, made, mark)
        try:
            os.replace(made, target)  # an empty folder may be there; a full one means that another process was faster
        except OSError:
            if not _holds(target, mark):
                raise
    report.out = target
    say(f"{report} {report.seconds:,.1f} s.")
    return target


def _holds(folder: Path, mark: str) -> bool:
    """Whether `folder` is the corpus with this fingerprint, whole."""
    try:
        return bool(json.loads((folder / PROOF).read_text())["fingerprint"] == mark)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_beside(source: Corpus, folder: Path, mark: str) -> None:
    if source.classes():
        write_atomic(folder / "classes.txt", "".join(f"{c}\n" for c in source.classes()))
        write_atomic(folder / "templates.txt", "".join(f"{t}\n" for t in source.templates()))
    if source.answers():
        write_atomic(folder / "answers.txt", "".join(f"{a}\n" for a in source.answers()))
    about = {
        "corpus": source.name,
        "version": source.version,
        "fingerprint": mark,
        "summary": source.summary,
        "origin": source.origin,
        "licence": source.licence,
        "packages": [to_dict(p) for p in source.packages],
        "config": to_dict(source.config),
    }
    write_json(folder / PROOF, about)


def _at_hand() -> list[str]:
    return [n for n in corpora() if all(has_client(p.client) for p in corpus(n).packages)]
