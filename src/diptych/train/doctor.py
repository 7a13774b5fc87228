"""Says in words what is wrong with a run and what to do about it, from the numbers that the run logs anyway.

The doctor reads the records of metrics.jsonl, in order, and nothing else, so it can be asked afterwards too
(`examine`). A record may lack any key; what cannot be judged is not judged.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

Severity = Literal["note", "warning", "stop"]


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor has to say."""

    code: str
    severity: Severity
    message: str
    advice: str
    samples_seen: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For doctor.jsonl and the report."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}"


@dataclass(frozen=True)
class Curve:
    """The losses that a recipe's run had on the same data, as means over `WINDOW` records.

    `points` are (samples seen, expected loss, lowest, highest), rising in the first; between them lie straight lines.
    """

    points: tuple[tuple[int, float, float, float], ...]
    runs: int

    def at(self, samples_seen: int) -> tuple[float, float, float] | None:
        """(expected, lowest, highest) loss; None outside of what was measured."""
        for (x0, *low), (x1, *high) in pairwise(self.points):
            if x0 <= samples_seen <= x1:
                share = (samples_seen - x0) / max(x1 - x0, 1)
                a, b, c = (p + share * (q - p) for p, q in zip(low, high, strict=True))
                return a, b, c
        return None


@dataclass(frozen=True)
class Facts:
    """What is known before the first step.

    `samples_total` and `warmup_samples` are the run's budget; `records` is the size of the training split;
    `max_logit_scale` is where the temperature is clamped (0: it is not); `writes`: the loss is one of words, not of
    pairs; `curve` is what the recipe's loss was on this data, if the run is that recipe as it stands.
    """

    samples_total: int
    warmup_samples: int
    global_batch: int
    records: int
    max_logit_scale: float = 0.0
    context_length: int = 0
    writes: bool = False
    curve: Curve | None = None


_RISING: tuple[Severity, ...] = ("note", "warning", "stop")

WINDOW = 5
"""How many records a judgement rests on: one bad record is noise."""

FEW_STEPS, FEW_SAMPLES = 20, 500
"""Before so many steps after the warm-up (or samples, for what is counted) nothing is judged: in a short run a record
may be a single step. What is still so at the end is said then."""


@dataclass
class Doctor:
    """Observes a run's records; `observe` returns what is new since the last one."""

    facts: Facts
    said: dict[str, Severity] = field(default_factory=dict)
    recent: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    best_loss: float = math.inf
    best_val_loss: float = math.inf
    loss_at_best_val: float = math.inf
    worse_val_evals: int = 0

    def observe(self, record: Mapping[str, Any]) -> list[Finding]:
        """What this record reveals that has not been said yet, or was said less seriously."""
        if "loss" in record:
            self.recent.append(record)
        candidates = [
            self._no_learning(),
            self._divergence(),
            self._collapse(),
            self._repeated_captions(),
            self._repeated_images(),
            self._truncation(record),
            self._starvation(),
            self._temperature(),
            self._idle_experts(),
            self._idle_codes(),
            self._parting(record),
            self._blindness(record),
            self._off_curve(record),
            self._skipped_steps(record),
            self._quarantine(record),
            self._many_epochs(record),
        ]
        new = []
        for finding in candidates:
            if finding is not None and _RISING.index(finding.severity) > self._loudness(finding.code):
                self.said[finding.code] = finding.severity
                new.append(Finding(**{**asdict(finding), "samples_seen": int(record.get("samples_seen", 0))}))
        return new

    def _loudness(self, code: str) -> int:
        """How serious the last finding of this code was; -1: there was none."""
        return _RISING.index(self.said[code]) if code in self.said else -1

    def _mean(self, key: str) -> float | None:
        values = [r[key] for r in self.recent if isinstance(r.get(key), (int, float)) and math.isfinite(r[key])]
        return sum(values) / len(values) if len(values) == WINDOW else None

    def _seen(self) -> int:
        return int(self.recent[-1].get("samples_seen", 0)) if self.recent else 0

    def _past_warmup(self, share: float = 0.05) -> bool:
        f = self.facts
        ready = f.warmup_samples + max(share * f.samples_total, FEW_STEPS * f.global_batch)
        return self._seen() >= min(ready, f.samples_total)

    def _no_learning(self) -> Finding | None:
        loss, chance = self._mean("loss"), self._mean("chance_loss")
        if loss is None or chance is None or chance <= 0 or not self._past_warmup() or loss < 0.97 * chance:
            return None
        terms = self.recent[-1].get("chance_terms")
        ln = f"ln {terms:.0f} = " if isinstance(terms, (int, float)) else ""
        repeated, what = self._mean("duplicate_captions") or 0.0, "texts" if self.facts.writes else "pairs"
        cause = (
            f"{repeated:.0%} of the pairs of a batch share their caption with another: there is little to tell apart."
            if repeated > 0.3
            else "Check that captions belong to their images (`diptych inspect`); then try a lower train.lr, a longer "
            f"train.warmup_samples, or see whether 128 {what} can be learnt by heart."
        )
        steps = self.facts.samples_total // max(self.facts.global_batch, 1)
        if steps < 2 * FEW_STEPS:
            cause = f"{steps:,} steps are few: raise train.samples_seen before anything else."
        found = "the model knows no more of words than how often each comes"
        return Finding(
            "loss_at_chance",
            "warning",
            f"The loss is {loss:.3f} and {ln}{chance:.3f} is what guessing gives: "
            + (f"{found}." if self.facts.writes else "the model tells no pair apart."),
            cause,
        )

    def _divergence(self) -> Finding | None:
        loss = self._mean("loss")
        if loss is None:
            return None
        chance = self._mean("chance_loss") or math.inf
        self.best_loss = min(self.best_loss, loss)
        if not self._past_warmup(0.0) or loss < 1.5 * self.best_loss or loss < 0.2 * min(chance, 10.0):
            return None
        return Finding(
            "divergence",
            "warning",
            f"The loss has risen to {loss:.3f} from {self.best_loss:.3f}: training diverges.",
            "Lower train.lr (a third is a good start) or lengthen train.warmup_samples; train.grad_clip=1 helps too.",
        )

    def _collapse(self) -> Finding | None:
        positive, negative = self._mean("positive_cosine"), self._mean("negative_cosine")
        if positive is None or negative is None or negative < 0.95 or not self._past_warmup():
            return None
        return Finding(
            "collapse",
            "warning",
            f"Pairs that do not belong together have a cosine of {negative:.3f} (those that do: {positive:.3f}): "
            "all embeddings point the same way.",
            "Lower train.lr; look at a batch with `diptych inspect`: images may be blank or captions all alike.",
        )

    def _repeated_captions(self) -> Finding | None:
        share = self._mean("duplicate_captions")
        if share is None or share < 0.2:
            return None
        return Finding(
            "repeated_captions",
            "warning" if share > 0.5 else "note",
            f"In a batch of {self.facts.global_batch:,}, {share:.0%} of the pairs share a caption with another pair.",
            "They are not counted as each other's negatives (objective.duplicates), but they teach little: give more "
            "specific captions, add alternatives, or use a smaller train.global_batch.",
        )

    def _repeated_images(self) -> Finding | None:
        share = self._mean("duplicate_images")
        if share is None or share < 0.2:
            return None
        return Finding(
            "repeated_images",
            "note",
            f"In a batch of {self.facts.global_batch:,}, {share:.0%} of the pairs share their image with another pair.",
            "If the images have several captions each, pack them as alternatives of one record; if the batch is close "
            "to the size of the data, make it smaller.",
        )

    def _truncation(self, record: Mapping[str, Any]) -> Finding | None:
        share = record.get("truncated")
        few = record.get("samples_seen", 0) < min(FEW_SAMPLES, self.facts.samples_total)
        if few or not isinstance(share, (int, float)) or share < 0.05:
            return None
        return Finding(
            "truncation",
            "warning" if share > 0.25 else "note",
            f"{share:.0%} of the captions lose their end to the context of {self.facts.context_length} tokens.",
            "Raise model.context_length (and pack with context_length=N), or a larger vocab_size=N shortens texts.",
        )

    def _starvation(self) -> Finding | None:
        wait = self._mean("data_wait")
        started = self._seen() >= min(FEW_STEPS * self.facts.global_batch, self.facts.samples_total)
        if wait is None or wait < 0.25 or not started:  # workers take a while to start
            return None
        return Finding(
            "starved",
            "warning" if wait > 0.5 else "note",
            f"{wait:.0%} of the time is spent waiting for data: the device starves.",
            "Pack with --resize (large photos are the usual cause) or set data.decode=scaled; raise data.workers; or "
            "set data.cache=pixels.",
        )

    def _temperature(self) -> Finding | None:
        scale, top = self._mean("logit_scale"), self.facts.max_logit_scale
        if scale is None:
            return None
        if top > 0 and scale >= 0.99 * top:
            return Finding(
                "temperature_saturated",
                "note",
                f"The logit scale stands at its clamp of {top:.0f}: every remaining error costs as much as it can.",
                "Common late in training. Early on it means noisy pairs or duplicates, or a rate that is too high.",
            )
        if scale < 2 and self._past_warmup(0.2):
            return Finding(
                "temperature_collapsed",
                "warning",
                f"The logit scale has fallen to {scale:.2f}: the model has given up telling pairs apart.",
                "Check that captions belong to their images; lower train.lr.",
            )
        return None

    def _idle_experts(self) -> Finding | None:
        idlest, busiest = self._mean("experts_idlest"), self._mean("experts_busiest")
        if idlest is None or busiest is None or idlest >= 0.1 or not self._past_warmup(0.2):
            return None
        return Finding(
            "experts_idle",
            "warning",
            f"An expert of a mixture gets {idlest:.0%} of an even share of the tokens, and another {busiest:.1f} times "
            "it: weights lie idle.",
            "Use fewer experts, or more a token (experts, experts_per_token). The balance moves by 1/1000 a step, so "
            "in a run of few steps train longer, or lower train.lr.",
        )

    def _idle_codes(self) -> Finding | None:
        use, perplexity = self._mean("codebook_use"), self._mean("perplexity")
        if use is None or use >= 0.1 or not self._past_warmup(0.2):
            return None
        return Finding(
            "codebook_idle",
            "warning",
            f"Images use {use:.1%} of the codebook (perplexity {perplexity or 0:.1f}): the other codes are dead.",
            "Set the quantizer's kmeans=true and revive_after=50, or update=ema; of a discrete VAE lower train.lr or "
            "raise kl_weight. Or a smaller codebook is enough.",
        )

    def _parting(self, record: Mapping[str, Any]) -> Finding | None:
        val = record.get("val_loss")
        loss = self._mean("loss")
        if not isinstance(val, (int, float)) or not math.isfinite(val) or loss is None:
            return None
        if val < self.best_val_loss:
            self.best_val_loss, self.loss_at_best_val, self.worse_val_evals = val, loss, 0
            return None
        self.worse_val_evals += val > 1.05 * self.best_val_loss and loss < self.loss_at_best_val
        if self.worse_val_evals < 2 or not self._past_warmup(0.0):
            return None
        return Finding(
            "train_and_validation_part",
            "warning",
            f"The validation loss has risen to {val:.3f} from {self.best_val_loss:.3f} while the training loss fell to "
            f"{loss:.3f}: the model learns the training pairs by heart.",
            "Stop earlier (train.samples_seen), augment more (data.augment), use a smaller model, or add pairs.",
        )

    def _blindness(self, record: Mapping[str, Any]) -> Finding | None:
        sight, error = record.get("sight"), record.get("sight_error")
        if not isinstance(sight, (int, float)) or not isinstance(error, (int, float)):
            return None
        late = record.get("samples_seen", 0) >= 0.5 * self.facts.samples_total
        if not late or not self._past_warmup() or not sight <= 2 * error:
            return None
        return Finding(
            "blind",
            "warning",
            f"With other records' images the validation loss is {record.get('val_loss_mismatched', math.nan):.3f} "
            f"instead of {record.get('val_loss', math.nan):.3f} (sight {sight:.4f}, give or take {2 * error:.4f}): the "
            "model writes without looking.",
            "Let something between image and words train (train.only, train.freeze), give the connector a higher rate "
            "(train.rates), or train longer; see whether the words alone already tell the answer (data.blind=true).",
        )

    def _off_curve(self, record: Mapping[str, Any]) -> Finding | None:
        loss, curve = self._mean("loss"), self.facts.curve
        expected = None if curve is None or "loss" not in record else curve.at(self._seen())
        if loss is None or curve is None or expected is None or expected[1] <= loss <= expected[2]:
            return None
        above = loss > expected[2]
        return Finding(
            "off_the_curve",
            "warning" if above else "note",
            f"The loss is {loss:.3f} at {self._seen():,} samples; of this recipe on this data it was {expected[0]:.3f} "
            f"({expected[1]:.3f} to {expected[2]:.3f}, {curve.runs} run{'s' if curve.runs > 1 else ''}).",
            "The recipe and the data are the same, so something else is not: compare env.json (versions, device), and "
            "look at the notes above."
            if above
            else "That is better than it was: see that evaluation agrees.",
        )

    def _skipped_steps(self, record: Mapping[str, Any]) -> Finding | None:
        skipped = record.get("nonfinite_steps", 0)
        if not isinstance(skipped, (int, float)) or skipped < 1:
            return None
        return Finding(
            "nonfinite",
            "warning",
            f"{skipped:.0f} steps had a loss or gradient that was not finite and were skipped.",
            "Lower train.lr; with bfloat16 try train.precision=float32; metrics.jsonl says at which samples.",
        )

    def _quarantine(self, record: Mapping[str, Any]) -> Finding | None:
        bad = record.get("quarantined", 0)
        if not isinstance(bad, (int, float)) or bad < 1:
            return None
        return Finding(
            "quarantine",
            "warning",
            f"{bad:.0f} records could not be read and were replaced by the next ones in order.",
            "Their names and reasons are in the run's quarantine.jsonl; pack the data again if they are many.",
        )

    def _many_epochs(self, record: Mapping[str, Any]) -> Finding | None:
        if not self.facts.records or "loss" not in record:
            return None
        epochs = self.facts.samples_total / self.facts.records
        if self.facts.global_batch > self.facts.records:
            return Finding(
                "batch_exceeds_data",
                "warning",
                f"A batch of {self.facts.global_batch:,} is larger than the data ({self.facts.records:,} records): "
                "every batch repeats records.",
                f"Set train.global_batch to at most {max(2, self.facts.records // 4):,}.",
            )
        if epochs < 200:
            return None
        return Finding(
            "many_epochs",
            "note",
            f"The budget shows each of the {self.facts.records:,} records {epochs:,.0f} times.",
            "Watch the validation numbers; strong augmentation (data.augment) makes repeats worth more.",
        )


def examine(records: Iterable[Mapping[str, Any]], facts: Facts) -> list[Finding]:
    """Everything that the doctor would have said of a run's records."""
    doctor = Doctor(facts)
    return [finding for record in records for finding in doctor.observe(record)]
