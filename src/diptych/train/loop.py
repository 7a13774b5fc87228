"""The one training loop: build - resume - for each step: fetch, accumulate, clip, step, log, eval, save - export.

What differs between paradigms is in the objective and the model; nothing here asks which one it is. A step's weights
are a function of the weights before it and of (seed, step), so a run that is cut anywhere goes on to the same bits.

Between two lines of the log the host waits for nothing that a device does (steady.py): whether a step counts is decided
where it is computed, and what it says of itself is read two steps later.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch

from diptych.checkpoints.native import save_pretrained
from diptych.core.batch import Batch
from diptych.core.config import flatten
from diptych.core.distributed import broadcast_object, init_from_environment, is_main, rank, world_size
from diptych.core.errors import TrainingError
from diptych.core.progress import say
from diptych.data.loader import Loader
from diptych.models.pretrained import Pretrained
from diptych.nn.experts import balance_experts, expert_use, experts_of
from diptych.train import run_folder
from diptych.train.accumulate import Gradient
from diptych.train.build import Run, build
from diptych.train.config import RunConfig
from diptych.train.display import Display
from diptych.train.doctor import Doctor, Facts
from diptych.train.ema import averaged
from diptych.train.environment import memory_mb, seed_step, set_up
from diptych.train.evaluate import evaluate, validation
from diptych.train.host_patches import host_patches
from diptych.train.lora import adapter_state, plain, save_adapters
from diptych.train.metrics import Interval, MetricsLog
from diptych.train.optimizer import clip_gradients, set_lr
from diptych.train.prefetch import on_device
from diptych.train.probe import noted
from diptych.train.resume import RunInterrupted, StopRequest, save_checkpoint
from diptych.train.schedule import resolution_at
from diptych.train.sharding import gathered
from diptych.train.steady import Outcome, Outcomes, Reported, Verdict, judge

SAVE_EVERY_S = 1800.0
"""At most so much work is lost to a crash where the cadence of checkpoints was left open: a tenth of a run can be days.
When they are written changes nothing in the run."""


def train(
    config: RunConfig,
    run_dir: str | Path,
    resume: bool = False,
    device: torch.device | None = None,
    base: RunConfig | None = None,
) -> Path:
    """Train what `config` says in the folder `run_dir`, and return it; RUN/model holds the result.

    `resume` goes on from the newest whole checkpoint. `base` is the recipe before overrides, kept for the record.
    Raises RunInterrupted when asked to stop (SIGTERM, SIGINT) after saving, TrainingError when it cannot go on.
    """
    device = device or init_from_environment()
    set_up(config.train.threads, config.train.deterministic, device)
    run, resumed = build(config, Path(run_dir), resume, device, base)
    finished = run.step == run.schedule.steps
    history = run_folder.cut_logs(run.folder, run.samples_seen, finished) if is_main() else []
    doctor = _doctor(run, history)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        log = _open_log(run, resumed, stack)
        display = stack.enter_context(Display(run.schedule.steps * run.schedule.global_batch, run.samples_seen))
        batches = stack.enter_context(closing(_batches(run)))
        outcomes = Outcomes(device)
        while run.step < run.schedule.steps:
            waited = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - waited if outcomes.idle() else 0.0
            seed_step(config.train.seed, run.step)
            set_lr(run.optimizer, run.schedule.learning_rate(run.step))
            run.statistics.note()
            gradient = run.accumulate(batch)
            late = not config.train.save_every_samples and time.monotonic() - run.saved_at > SAVE_EVERY_S
            reported = Reported(batch.truncated, run.meter.flops(batch), stop.signal > 0, late)
            verdict = judge(run.objective, gradient.losses, reported)
            _apply(run, verdict)
            outcomes.put(run.step, verdict, waited)
            run.step += 1
            stopping, late = _hear(run, outcomes)

            if run.due(config.train.log_every_samples, 200):
                record = _record(run, gradient)
                display.update(run.samples_seen, *(record.get(k) or 0.0 for k in _SHOWN))
                _observe(run, doctor, log, record)
            paused = time.perf_counter()
            if run.due(config.train.eval_every_samples, 8) and run.step < run.schedule.steps:
                for record in _evaluations(run):
                    _observe(run, doctor, log, record)
            if stopping or late or run.due(config.train.save_every_samples, 10):
                _save(run)
            run.interval.started += time.perf_counter() - paused  # the rate is that of training alone
            if stopping:
                raise RunInterrupted(run_folder.how_to_resume(run.folder, run.samples_seen), stop.signal or SIGTERM)
        for record in _finish(run):
            _observe(run, doctor, log, record)
    return run.folder


def _batches(run: Run) -> Generator[Batch, None, None]:
    """This rank's share of each global batch from the run's next step on, on its device."""
    t, form, g = run.config.train, run.config.model.image_format, run.schedule.global_batch
    steps = run.schedule.steps
    side = resolution_at(steps, g, form.resolution, t.progressive)
    features = run.tables.get(run.split.name)
    uses = run.objective.uses
    reads = (run.tokenizer if "text" in uses else None, form if "image" in uses else None)
    loader = Loader(run.split, *reads, run.config.data, t.seed, g, rank(), world_size(), features)
    if run.objective.couples_pairs:
        loader.one_image(run.objective.takes_alone)
    loader.keep_patches(host_patches(run.objective))
    if "words" in uses:
        loader.mark_words()
    with closing(loader.batches(run.samples_seen, steps * g, side)) as batches:
        for batch in on_device(batches, run.device, t.channels_last):
            run_folder.note_quarantine(run.folder, loader.quarantine)
            yield batch


def _apply(run: Run, verdict: Verdict) -> None:
    """Clip and take the optimizer's step, or none where the verdict is so: the device knows, and the host does not ask.

    After a step that a device has skipped, `after_step` finds the weights as it left them the last time.
    """
    clip_gradients(run.objective, run.config.train.grad_clip, verdict.norm)
    run.optimizer.found_inf = verdict.skipped  # type: ignore[attr-defined]  # the fused step leaves all as it is if 1
    run.optimizer.step()
    run.statistics.restore(verdict.skipped)
    if run.device.type != "cpu" or not verdict.skipped:
        run.objective.after_step()
        balance_experts(run.objective)
    if run.ema is not None:
        run.ema.update(run.objective.model, verdict.skipped)
    run.optimizer.zero_grad(set_to_none=True)


def _hear(run: Run, outcomes: Outcomes) -> tuple[bool, bool]:
    """Take in the steps whose outcome is due: all of them before anything is written. Whether to stop and to save."""
    t = run.config.train
    cadences = ((t.log_every_samples, 200), (t.eval_every_samples, 8), (t.save_every_samples, 10))
    heard = outcomes.take(everything=any(run.due(*cadence) for cadence in cadences))
    if any(o.reported.stop or o.reported.late for o in heard):
        heard += outcomes.take(everything=True)
    for outcome in heard:
        _note(run, outcome)
    return any(o.reported.stop for o in heard), any(o.reported.late for o in heard)


def _note(run: Run, outcome: Outcome) -> None:
    """Count a step; say so if it was skipped; give up if too many were."""
    run.interval.add(run.schedule.global_batch, outcome.reported, outcome.wait_s, outcome.values)
    if not outcome.skipped:
        run.nonfinite_in_a_row = 0
        return
    run.nonfinite_steps += 1
    run.nonfinite_in_a_row += 1
    loss, norm = outcome.values["loss"], outcome.values["grad_norm"]
    where = ", ".join(outcome.not_finite[:3]) or "no parameter"
    first = outcome.step * run.schedule.global_batch
    say(
        f"step {outcome.step} (samples {first:,} to {first + run.schedule.global_batch:,}) is skipped: the loss is "
        f"{loss:.4g}, the gradient's norm {norm:.4g} (not finite in: {where})."
    )
    if run.nonfinite_in_a_row > run.config.train.max_nonfinite_steps:
        raise TrainingError(
            f"loss and gradient must be finite; {run.nonfinite_in_a_row} steps in a row were not (last: loss "
            f"{loss:.4g}, not finite in {where}). Lower train.lr (now {run.schedule.peak_lr:.2g})"
            + (", try train.precision=float32" if run.config.train.precision != "float32" else "")
            + ", and resume from the last checkpoint or start anew."
        )


_SHOWN = ("loss", "samples_per_s", "data_wait", "memory_mb", "mfu")


def _record(run: Run, gradient: Gradient) -> dict[str, Any]:
    """A line of the log: means since the last line, rates, and the objective's health now."""
    interval, run.interval = run.interval, Interval()
    return {
        "kind": "train",
        "samples_seen": run.samples_seen,
        "step": run.step,
        "epoch": run.samples_seen / max(len(run.split), 1),
        **interval.means(),
        "lr": run.schedule.learning_rate(run.step - 1),
        **({} if run.chance is None else {"chance_loss": run.chance}),
        **run.objective.health(gradient.encoded, gradient.batch),
        **expert_use(experts_of(run.objective.model)),
        **interval.rates(),
        **run.meter.utilisation(interval.timed_flops, interval.elapsed),
        "memory_mb": memory_mb(run.device),
        "truncated": interval.truncated / max(interval.samples, 1),
        "nonfinite_steps": run.nonfinite_steps,
        "quarantined": run_folder.quarantined(run.folder),
    }


def _observe(run: Run, doctor: Doctor, log: MetricsLog | None, record: dict[str, Any]) -> None:
    """Write a record, and let the doctor speak; its stop ends the run on all ranks."""
    fatal = None
    if log is not None:
        log.write(record)
        for finding in doctor.observe(record):
            run_folder.note_finding(run.folder, finding)
            if finding.severity == "stop":
                fatal = str(finding)
    fatal = broadcast_object(fatal)
    if fatal:
        raise TrainingError(f"the doctor stops the run at {run.samples_seen:,} samples. {fatal}")


def _evaluations(run: Run, final: bool = False, fingerprint: str = "") -> list[dict[str, Any]]:
    """The validation loss and each eval with the current (averaged, where there is an average) weights, as records."""
    model, at = run.objective.model, {"samples_seen": run.samples_seen, "step": run.step}
    records: list[dict[str, Any]] = []
    with averaged(model, run.ema):
        numbers = validation(
            run.config, run.dataset, run.tokenizer, run.objective, run.accumulate, run.device, run.tables.get("val")
        )
        if numbers:
            records.append({"kind": "val", **at, **numbers})
        if run.config.evals:
            with gathered(model) as entire:
                if is_main():
                    pretrained = Pretrained(entire, run.tokenizer, fingerprint, run.folder.name)
                    found = evaluate(run.config, run.dataset, pretrained, run.folder, run.samples_seen, final)
                    records += [{"kind": "eval", **at, **values} for values in found]
    run.objective.train()
    return broadcast_object(records)  # the other ranks wait here for the evals of the main one


def _save(run: Run) -> None:
    state = {
        "samples_seen": run.samples_seen,
        "step": run.step,
        "nonfinite_steps": run.nonfinite_steps,
        "nonfinite_in_a_row": run.nonfinite_in_a_row,
        "interval": run.interval.state(),
        "ema_updates": run.ema.updates if run.ema else 0,
        "peak_lr": run.schedule.peak_lr,
        "warmup_samples": run.schedule.warmup_samples,
        "data_fingerprint": run.dataset.fingerprint,
        "way": noted(run.accumulate.way, run.schedule.global_batch // world_size()),
        "config": flatten(run.config),
    }
    keep = run.config.train.keep_checkpoints
    save_checkpoint(run.folder, run.objective, run.optimizer, run.ema, run.tokenizer, state, keep)
    run.saved_at = time.monotonic()


def _finish(run: Run) -> list[dict[str, Any]]:
    """Export the result to RUN/model, and judge it with everything that the report shows."""
    fingerprint, extra = "", {"samples_seen": run.samples_seen, "recipe": run.config.recipe}
    with averaged(run.objective.model, run.ema), gathered(run.objective.model) as entire:
        adapters = adapter_state(run.objective.model)
        if is_main():
            fingerprint = save_pretrained(run.folder / "model", plain(entire), run.tokenizer, extra)
            if adapters:
                save_adapters(run.folder / "adapter", adapters, run.config.train.lora, run.config.init)
    return _evaluations(run, True, fingerprint)


def _doctor(run: Run, history: list[dict[str, Any]]) -> Doctor:
    """The doctor, having read what the run has logged so far."""
    facts = Facts(
        samples_total=run.schedule.steps * run.schedule.global_batch,
        warmup_samples=run.schedule.warmup_samples,
        global_batch=run.schedule.global_batch,
        records=len(run.split),
        max_logit_scale=getattr(run.config.model, "max_logit_scale", 0.0),
        context_length=run.config.model.context_length,
        writes=run.objective.writes and not run.objective.couples_pairs,
        curve=run.curve,
    )
    doctor = Doctor(facts)
    for record in history:
        doctor.observe(record)
    return doctor


def _open_log(run: Run, resumed: bool, stack: ExitStack) -> MetricsLog | None:
    if not is_main():
        return None
    log = MetricsLog(run.folder, run.config.train.wandb, run.config.train.mlflow, run.samples_seen if resumed else 0)
    stack.callback(log.close)
    return log
