"""Everything that a run is made of, put together from its config: what the loop then turns over and over."""

import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diptych.checkpoints.native import fill, load, resize_positions
from diptych.checkpoints.packaged import load_packaged
from diptych.core.config import Config, to_json
from diptych.core.distributed import world_size
from diptych.core.errors import ConfigError
from diptych.core.progress import say
from diptych.core.seeds import fold
from diptych.data.dataset import Dataset, Split
from diptych.data.mixture import Mixture
from diptych.data.ready import open_ready
from diptych.data.tokenize import Tokenizer
from diptych.models.hf_folder import fill_from_folders
from diptych.models.model import Model
from diptych.models.packaged import PREFIX, packaged_tokenizer
from diptych.nn.checkpointing import set_checkpointing
from diptych.objectives.objective import Objective
from diptych.train import run_folder
from diptych.train.accumulate import Accumulator
from diptych.train.batch_norms import RunningStatistics, batch_norm_notice, batch_norms
from diptych.train.chance import unigram_entropy
from diptych.train.compiling import compile_blocks, compiles
from diptych.train.config import RunConfig
from diptych.train.display import header
from diptych.train.doctor import Curve
from diptych.train.ema import Ema
from diptych.train.environment import warn_of_slow_bfloat16
from diptych.train.freeze import frozen_fact, frozen_state, objective_around
from diptych.train.lora import adapter_fact
from diptych.train.meter import Meter
from diptych.train.metrics import Interval
from diptych.train.optimizer import build_optimizer, decayed_names, rates_fact
from diptych.train.parts import fill_part
from diptych.train.probe import leaner, way_of_run
from diptych.train.reference_curve import find_curve
from diptych.train.resume import load_checkpoint
from diptych.train.schedule import Schedule, choose_lr, choose_warmup, resolution_at, settle
from diptych.train.sharding import is_sharded, shard
from diptych.train.tables import Tables, cached_names, run_tables


@dataclass
class Run:
    """Everything that a step needs, and the few numbers that change: they go into every checkpoint."""

    config: RunConfig
    folder: Path
    device: torch.device
    dataset: Dataset
    tokenizer: Tokenizer
    objective: Objective
    schedule: Schedule
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    accumulate: Accumulator
    statistics: RunningStatistics
    meter: Meter
    tables: Tables = field(default_factory=dict)
    chance: float | None = None
    curve: Curve | None = None
    step: int = 0
    nonfinite_steps: int = 0
    nonfinite_in_a_row: int = 0
    interval: Interval = field(default_factory=Interval)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def samples_seen(self) -> int:
        """Samples behind us, all ranks together."""
        return self.step * self.schedule.global_batch

    @property
    def split(self) -> Split:
        """What is trained on."""
        return self.dataset.split(self.config.data.split)

    def due(self, every: int, shares: int) -> bool:
        """Whether the step just done crossed a multiple of `every` samples (0: that share of the budget) or the end."""
        every = every or max(1, self.schedule.steps * self.schedule.global_batch // shares)
        before = self.samples_seen - self.schedule.global_batch
        return self.samples_seen // every > before // every or self.step == self.schedule.steps


def build(
    config: RunConfig, folder: Path, resume: bool, device: torch.device, base: RunConfig | None = None
) -> tuple[Run, bool]:
    """The run at its first step, or at the step after its newest checkpoint, and whether it was resumed."""
    dataset = open_data(config)
    settled, chosen = settle(config.train, len(dataset.split(config.data.split)), world_size())
    config = config.replace(train=settled)
    if config.train.global_batch % world_size():
        raise ConfigError(
            f"train.global_batch must be a multiple of the {world_size()} processes; got {config.train.global_batch}. "
            f"Try {math.ceil(config.train.global_batch / world_size()) * world_size()}."
        )
    found = run_folder.find_start(folder, config, resume, dataset.fingerprint)
    # a checkpoint holds its tokenizer and what has become of init and parts, which may be gone
    kept = config.replace(init="", parts={}, tokenizer="") if found else config
    given = run_folder.located(kept, folder)
    tokenizer = Tokenizer.load(found[0]) if found else find_tokenizer(given, dataset)
    objective = build_objective(given, tokenizer, device, fresh=found is None)
    cached_names(config, objective)  # can it be?
    schedule, reasons = choose_schedule(config, objective, found[1] if found else {})
    t = config.train
    resolution_at(schedule.steps, t.global_batch, config.model.image_format.resolution, t.progressive)  # is it sound?
    reasons["chosen"] = chosen
    way, reasons["memory"] = way_of_run(config, objective, dataset, tokenizer, found[1] if found else {})
    compiled, why_compiled = compiles(t.compile, device, schedule.steps)
    reasons["compiled"] = why_compiled if compiled else ""
    if compiled:
        compile_blocks(objective)
    set_checkpointing(objective, way.checkpoint)  # after blocks are compiled, before they are sharded
    if t.sharding == "fsdp":
        shard(objective)
    assert t.weight_decay is not None  # it is settled
    optimizer = build_optimizer(objective, schedule.peak_lr, t.weight_decay, t.betas, t.eps, t.optimizer, t.rates)
    ema = Ema(objective.model, t.ema_decay, frozen_state(objective.model)) if t.ema_decay else None
    run_folder.open_run(folder, config, base, found, dataset, device)  # not before all is known to fit
    accumulate = Accumulator(objective, way.micro_batch, t.precision, way.kept)
    accumulate.leaner = partial(leaner, batch_norm=bool(batch_norms(objective))) if t.micro_batch < 0 else None
    statistics = RunningStatistics(objective)
    parts = (dataset, tokenizer, objective, schedule, optimizer, ema, accumulate, statistics)
    run = Run(config, folder, device, *parts, _meter(given, tokenizer.vocab_size, device))
    if found:
        load_checkpoint(found[0], objective, optimizer, ema)
        state = found[1]
        run.step = state["samples_seen"] // schedule.global_batch
        run.nonfinite_steps, run.nonfinite_in_a_row = state["nonfinite_steps"], state["nonfinite_in_a_row"]
        run.interval = Interval(**state["interval"])
    header(_facts(run, reasons))
    warn_of_slow_bfloat16(t.precision, device)
    notice = batch_norm_notice(objective, way.micro_batch, t.global_batch // world_size())
    if notice:
        say(f"  note: {notice}")
    run.tables = run_tables(config, objective, dataset, tokenizer, device)
    run.curve = find_curve(config, dataset.fingerprint)
    if objective.writes and not objective.couples_pairs:
        run.chance = unigram_entropy(run.split, tokenizer, config.data, t.seed)
    return run, found is not None


def build_objective(config: RunConfig, tokenizer: Tokenizer, device: torch.device, fresh: bool = True) -> Objective:
    """The objective around a model with fresh weights, which are a function of the seed, and with those that its
    settings name; not `fresh`: with any, which a checkpoint will replace."""
    torch.manual_seed(fold(config.train.seed, "init"))
    model = config.model.build(tokenizer.vocab_size)
    if config.init:
        start_from(model, config.init)
    elif fresh:
        load_packaged(model)
    for name, reference in config.parts.items():
        fill_part(model, name, reference)
    fill_from_folders(model, fresh)
    model = model.to(device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return objective_around(config, model)


def _meter(config: RunConfig, vocab_size: int, device: torch.device) -> Meter:
    """Counts the run's operations on an objective like its own."""

    def like_its_own() -> Objective:
        return objective_around(config, config.model.build(vocab_size))

    t = config.train
    name = f"{to_json(config.model)}{to_json(config.objective)}{vocab_size}{t.freeze}{t.only}{t.lora}"
    return Meter(like_its_own, name, config.model.context_length, device, config.train.precision)


def start_from(model: Model, init: str) -> None:
    """Put the weights of the model folder `init` into `model`; position embeddings fit another resolution."""
    given = load(init)
    mine, theirs = model.vocab_size, given.model.vocab_size
    if mine != theirs:
        raise ConfigError(
            f"init must be a model with the run's vocabulary of {mine:,} tokens; got {theirs:,} in {init}. "
            f"Its own tokenizer fits: tokenizer={init}."
        )
    fill(model, resize_positions(given.model.state_dict(), model))


def open_data(config: RunConfig) -> Dataset:
    """The run's dataset or mixture; the main rank packs first what is not packed yet."""
    return open_ready(config.data, config.model.context_length)


def find_tokenizer(config: RunConfig, dataset: Dataset) -> Tokenizer:
    """The dataset's own tokenizer, CLIP's, a package's or the one in a file, with the model's context length."""
    length = config.model.context_length
    if config.tokenizer == "clip":
        return Tokenizer.clip(length)
    if config.tokenizer.startswith(PREFIX):
        return packaged_tokenizer(config.tokenizer.removeprefix(PREFIX)).with_context_length(length)
    found = Tokenizer.from_file(config.tokenizer) if config.tokenizer else dataset.tokenizer()
    return found.with_context_length(length)


def choose_schedule(config: RunConfig, objective: Objective, state: dict[str, Any]) -> tuple[Schedule, dict[str, str]]:
    """The learning rate's course and why it is so. A resumed run keeps what was chosen when it began."""
    t = config.train
    parameters = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    lr, why_lr = (t.lr, "given") if t.lr is not None else choose_lr(t.global_batch, parameters)
    warmup, why_warmup = choose_warmup(t.samples_seen, t.global_batch)
    if t.warmup_samples is not None:
        warmup, why_warmup = t.warmup_samples, "given"
    lr, warmup = state.get("peak_lr", lr), state.get("warmup_samples", warmup)
    schedule = Schedule(t.samples_seen, t.global_batch, lr, warmup, t.schedule, t.cooldown_samples)
    return schedule, {"lr": why_lr, "warmup": why_warmup}


def _facts(run: Run, reasons: dict[str, str]) -> dict[str, str]:
    """What is said before the first step."""
    t, s, model = run.config.train, run.schedule, run.objective.model
    decayed, undecayed = (len(x) for x in decayed_names(run.objective))
    parameters = sum(p.numel() for p in model.parameters())
    share = s.global_batch // world_size()
    return {
        "run": f"{run.folder}" + (f", resumed at {run.samples_seen:,} samples" if run.step else ""),
        "model": f"{_name(run.config.model)}, {parameters / 1e6:.2f} M parameters, vocabulary {model.vocab_size:,}",
        **({"frozen": frozen_fact(model)} if t.chooses else {}),
        **({"adapters": adapter_fact(model, t.lora)} if t.lora.rank else {}),
        "data": _data_fact(run),
        "objective": _name(run.config.objective).lower(),
        "budget": f"{s.steps * s.global_batch:,} samples = {s.steps:,} steps of {s.global_batch:,} = "
        f"{s.steps * s.global_batch / max(len(run.split), 1):.1f} epochs",
        "rate": f"{s.peak_lr:.2g} ({reasons['lr']}), {s.shape}",
        **({"its shares": rates_fact(run.objective, t.rates)} if t.rates else {}),
        "warm-up": f"{s.warmup_samples:,} samples ({reasons['warmup']})",
        "optimizer": f"{'Muon and AdamW' if t.optimizer == 'muon' else 'AdamW'}, decay {t.weight_decay} on {decayed} "
        f"tensors, none on {undecayed}",
        "device": f"{run.device}, {t.precision}, {world_size()} process(es) x {share:,} pairs"
        + (", weights sharded" if is_sharded(run.objective) else "")
        + f", {torch.get_num_threads()} threads"
        + (f", blocks compiled ({reasons['compiled']})" if reasons["compiled"] else ""),
        "memory": reasons["memory"],
        **({"chosen": reasons["chosen"]} if reasons["chosen"] else {}),
    }


def _data_fact(run: Run) -> str:
    """Where the records come from, and how often each part of a mixture is seen."""
    if isinstance(run.split, Mixture):
        return run.split.describe(run.schedule.steps * run.schedule.global_batch)
    return f"{run.config.data.path}, {run.split.name}: {len(run.split):,} records"


def _name(config: Config) -> str:
    """What a config builds (a sharded module's class has another name)."""
    return type(config).__name__.removesuffix("Config")
