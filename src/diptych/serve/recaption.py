"""A packed dataset with new captions: written by a model that writes, kept where a model that judges accepts them.

CapFilt (Li et al., 2022, arXiv:2201.12086, section 3.3): a captioner writes a text about each image, drawn from the
nucleus, and a filter drops, of written and original texts alike, those that it says do not match their image.

The work lies here since it asks models about images one after the other, as an index does. It has two parts. The first
writes and scores, a line a record in a journal beside the output: cut anywhere, it goes on behind the last line, and
what it draws for a record is a function of the seed and the record's uid. The second decides by those scores, reasons
counted, and packs.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from diptych.core.config import Config, to_dict
from diptych.core.errors import ConfigError, DataError
from diptych.core.files import write_json
from diptych.core.record import Record, Segment
from diptych.data.dataset import Dataset
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import Reject, Source
from diptych.models.pretrained import Pretrained
from diptych.serve.caption_journal import Journal, Written
from diptych.serve.caption_writing import CaptionWriter, CaptionWriting

REPORT = "recaption.json"


class RecaptionConfig(Config):
    """How a dataset is captioned anew.

    splits     which of its splits; the others are copied
    writing    how captions are written
    rule       which texts are kept, by the judge's scores: "threshold": those of at least `threshold`, originals too
               (the paper's filter is the log-odds of a match, and 0); "better": what was written if it scores higher
               than every original, and all originals
    weight     of a written caption when one is drawn in training, an original's being 1 on average
    tokenizer  "kept": the dataset's own; "train": a new one, on all captions
    jobs       processes that check images while packing; 0: one a core
    """

    splits: tuple[str, ...] = ("train",)
    writing: CaptionWriting = CaptionWriting()
    rule: Literal["threshold", "better"] = "threshold"
    threshold: float = Field(default=0.0, allow_inf_nan=False)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    tokenizer: Literal["kept", "train"] = "kept"
    jobs: int = Field(default=0, ge=0)


@dataclass
class RecaptionReport:
    """What became of records and texts. `str()` of it is for people.

    left      records that were not captioned anew, by reason: "not_a_pair" (several images, texts or none), "no_image"
              (it cannot be decoded)
    dropped   written captions that were not kept, by reason: "empty", "repeats" (another of its captions), "unmatched"
              (below the threshold), "not_better" (than the originals)
    lost      records of which no caption was kept
    """

    out: str
    records: int = 0
    left: dict[str, int] = field(default_factory=dict)
    written: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    originals: int = 0
    originals_dropped: int = 0
    lost: int = 0

    @property
    def synthetic_share(self) -> float:
        """The share of written captions among all that the captioned records have now."""
        everything = self.kept + self.originals - self.originals_dropped
        return self.kept / everything if everything else 0.0

    def __str__(self) -> str:
        lines = [
            f"Captioned {self.records:,} records anew into {self.out}: {self.written:,} captions written, "
            f"{self.kept:,} kept ({_share(self.kept, self.written)}); they are {self.synthetic_share:.1%} of all "
            "captions now.",
            f"Of {self.originals:,} originals {self.originals_dropped:,} were dropped "
            f"({_share(self.originals_dropped, self.originals)}).",
        ]
        for what, found in (("Written captions dropped", self.dropped), ("Records left as they were", self.left)):
            if found:
                lines.append(f"{what}: " + ", ".join(f"{n:,} {why}" for why, n in sorted(found.items())) + ".")
        if self.lost:
            lines.append(f"{self.lost:,} records lost all their captions; rejected.parquet names them.")
        return "\n".join(lines)


def recaption(
    dataset: Dataset,
    writer: Pretrained,
    out: str | PathLike[str],
    config: RecaptionConfig | None = None,
    judge: Pretrained | None = None,
    overwrite: bool = False,
) -> RecaptionReport:
    """Write the dataset `out`: `dataset` with further captions by `writer`, kept as `judge` says (None: all).

    Captions that were written before `out` was whole are not written again. Records keep their images and keys; a uid
    is of images and texts, and so another where texts are. What was written stands behind the originals, and its number
    in the record's meta and in records.parquet as "synthetic". `out`/recaption.json holds the report.
    Errors: ConfigError for an output, split or model that cannot be.
    """
    config, out = config or RecaptionConfig(), Path(out)
    path = out.with_name(f".{out.name}.captions.jsonl")
    header = {
        "dataset": dataset.fingerprint,
        "splits": list(config.splits),
        "writing": {k: v for k, v in to_dict(config.writing).items() if k != "batch_size"},
        "writer": writer.fingerprint,
        "judge": None if judge is None else judge.fingerprint,
    }
    # killed when all was packed, but the journal was there still: it is packed again from it
    overwrite = overwrite or (path.is_file() and _is_unfinished(out, _name_of(dataset), config, header))
    _refuse(dataset, out, config, overwrite)
    asks = CaptionWriter(writer, judge, config.writing)
    journal = Journal(path, header)
    places = [(name, i) for name in config.splits for i in range(len(dataset.split(name)))]
    asks.fill(dataset, places, journal)
    report = RecaptionReport(str(out))
    source = _Recaptioned(dataset, journal, config, report)
    kept = config.tokenizer == "kept" and (dataset.path / "tokenizer.json").is_file()
    more = {"tokenizer": str(dataset.path / "tokenizer.json")} if kept else {}
    length = dataset.info.get("tokenizer", {}).get("context_length")
    more |= {"context_length": length} if length else {}
    pack(source, out, PackConfig(val=0.0, jobs=config.jobs, overwrite=overwrite, images_only=True, **more))
    write_json(out / REPORT, asdict(report) | {"settings": to_dict(config), "made_from": header})
    journal.remove()
    return report


def decide(record: Record, found: Written, config: RecaptionConfig, report: RecaptionReport) -> Record | Reject:
    """The record with the texts that are kept, counted in `report`; a Reject where there is none."""
    if found.why:
        report.left[found.why] = report.left.get(found.why, 0) + 1
        return record
    report.records += 1
    text = record.first("text")
    originals = () if text is None else text.texts
    weights = (1.0,) * len(originals) if text is None or text.weights is None else text.weights
    reasons = _reasons(originals, found, config)
    lost = config.rule == "threshold" and found.originals is not None
    stays = [not lost or s >= config.threshold for s in found.originals or [0.0] * len(originals)]
    new = tuple(t for t, why in zip(found.written, reasons, strict=True) if not why)
    report.written += len(found.written)
    report.kept += len(new)
    for why, n in Counter(filter(None, reasons)).items():
        report.dropped[why] = report.dropped.get(why, 0) + n
    report.originals += len(originals)
    report.originals_dropped += stays.count(False)
    old = [(t, w) for t, w, stay in zip(originals, weights, stays, strict=True) if stay]
    if not old and not new:
        report.lost += 1
        message = "a record must have a caption; the judge accepts none of its. Lower the threshold."
        return Reject(record.key, message, "no_caption_kept")
    mean = sum(w for _, w in old) / len(old) if old else 1.0
    if old and mean == 0:
        mean = 1.0
    chances = (*(w for _, w in old), *(config.weight * mean for _ in new))
    segment = Segment(
        "text", (*(t for t, _ in old), *new), "txt", role="caption",
        loss=True if text is None else text.loss,
        weights=None if len(set(chances)) == 1 else chances,
    )  # fmt: skip
    meta = {**record.meta, "synthetic": len(new)} if new else record.meta
    segments = tuple(segment if s.modality == "text" else s for s in record.segments)
    return replace(record, segments=segments if text is not None else (*segments, segment), meta=meta)


def _reasons(originals: tuple[str, ...], found: Written, config: RecaptionConfig) -> list[str]:
    """Why each written caption is not kept; "": it is."""
    known, reasons = {t.strip().casefold() for t in originals}, []
    best = max(found.originals or [float("-inf")])
    scores: Sequence[float | None] = found.scores or [None] * len(found.written)
    for text, score in zip(found.written, scores, strict=True):
        plain = text.strip().casefold()
        if not plain:
            reasons.append("empty")
        elif plain in known:
            reasons.append("repeats")
        elif score is not None and config.rule == "threshold" and score < config.threshold:
            reasons.append("unmatched")
        elif score is not None and config.rule == "better" and score <= best:
            reasons.append("not_better")
        else:
            reasons.append("")
        known.add(plain)
    return reasons


class _Recaptioned(Source):
    """The records of a dataset with what the journal holds for them."""

    def __init__(self, dataset: Dataset, journal: Journal, config: RecaptionConfig, report: RecaptionReport) -> None:
        self.dataset, self.journal, self.settings, self.report = dataset, journal, config, report

    @property
    def name(self) -> str:
        """The dataset that it is made of."""
        return _name_of(self.dataset)

    def count(self) -> int:
        return sum(len(s) for s in self.dataset.splits.values())

    def records(self) -> Iterator[Record | Reject]:
        lines = self.journal.lines()
        for name in (*self.settings.splits, *(n for n in self.dataset.splits if n not in self.settings.splits)):
            split = self.dataset.split(name)
            for i in range(len(split)):
                given = split.record(i)
                record = replace(given, meta={**given.meta, "split": name})
                if name not in self.settings.splits:
                    yield record
                    continue
                line = next(lines)
                if line.uid != split.uid(i):
                    raise DataError(
                        f"{self.journal.path} must hold a line for each record in its order; got {line.uid} for "
                        f"{split.uid(i)}. Delete it, and start again."
                    )
                yield decide(record, line, self.settings, self.report)


def _name_of(dataset: Dataset) -> str:
    return f"{dataset.path}, captioned anew"


def _is_unfinished(out: Path, name: str, config: RecaptionConfig, header: dict[str, Any]) -> bool:
    """Whether `out` is what this same work packed: no report is there yet, or this very one."""
    try:
        about = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
        said = json.loads((out / REPORT).read_text(encoding="utf-8")) if (out / REPORT).is_file() else {}
    except (OSError, ValueError):
        return False
    same = not said or [said.get("settings"), said.get("made_from")] == [to_dict(config), header]
    return same and isinstance(about, dict) and about.get("source", {}).get("name") == name


def _refuse(dataset: Dataset, out: Path, config: RecaptionConfig, overwrite: bool) -> None:
    """Before hours of writing: can it be?"""
    for name in config.splits:
        dataset.split(name)
    if len(set(config.splits)) != len(config.splits):
        raise ConfigError(f"splits must be different ones; got {', '.join(config.splits)}. Name each once.")
    there = out.resolve()
    if there == dataset.path.resolve() or dataset.path.resolve() in there.parents:
        raise ConfigError(
            f"the output must lie outside of the dataset; got {out} for {dataset.path}. Name another --out."
        )
    holds = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if holds and not (overwrite and (out / "dataset.json").is_file()):
        raise ConfigError(
            f"the output must be new, or with --overwrite a dataset; {out} holds something already. Name another --out."
        )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
