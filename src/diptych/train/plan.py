"""What a run would cost, before it is started: parameters, FLOPs and memory measured on tensors without content."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diptych.core.batch import Batch
from diptych.core.config import flatten
from diptych.core.distributed import world_size
from diptych.data.dataset import Dataset
from diptych.data.ready import open_ready
from diptych.data.tokenize import Tokenizer
from diptych.objectives.objective import Objective
from diptych.train.accumulate import Way
from diptych.train.build import find_tokenizer
from diptych.train.config import RunConfig, stage_of
from diptych.train.freeze import frozen_fact, objective_around
from diptych.train.probe import Costs, Line, available, choose, measure, peak, situation, words
from diptych.train.schedule import settle
from diptych.train.synthetic_batch import Batches, batches_like, caption_lengths
from diptych.train.tables import cached_widths


@dataclass(frozen=True)
class Cost:
    """Measured on the meta device, so exact for the shapes and free of charge.

    parameters         numbers, by the first part of their name
    flops_per_sample   of one forward and one backward pass
    fixed_bytes        weights, gradients and two moments of AdamW of what trains, and the moving average where there is
                       one
    activation_bytes_per_sample   what autograd keeps for the backward pass
    frozen             what is frozen, in words; "" if nothing is
    """

    parameters: dict[str, int]
    flops_per_sample: float
    fixed_bytes: int
    activation_bytes_per_sample: float
    frozen: str = ""

    @property
    def total_parameters(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())


def cost(config: RunConfig, vocab_size: int) -> Cost:
    """Measure the model and objective of `config` for a vocabulary of `vocab_size`."""
    objective = _without_content(config, vocab_size)
    model = objective.model
    parameters: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        group = name.split(".")[0]
        parameters[group] = parameters.get(group, 0) + parameter.numel()
    small, large = 4, 8  # two sizes: the difference is what a sample costs
    a, b = (_measure(objective, config, n) for n in (small, large))
    total = sum(p.numel() for p in objective.parameters())
    moving = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    fixed = 4 * (total * (2 if config.train.ema_decay else 1) + 3 * moving)
    frozen = frozen_fact(model) if config.train.chooses else ""
    return Cost(parameters, (b[0] - a[0]) / (large - small), fixed, (b[1] - a[1]) / (large - small), frozen)


def plan(config: RunConfig, base: RunConfig | None = None) -> str:
    """What `diptych pretrain --dry-run` prints of each run, stages first: cost, length, changes, the config."""
    runs = (*config.before, config)
    bases = (None,) * len(runs) if base is None else (*base.before, base)
    texts = [_plan_of(run, before, config) for run, before in zip(runs, bases, strict=True)]
    if len(runs) == 1:
        return texts[0]
    names = [run.stage or "the last" for run in runs]
    return "\n\n".join(
        f"stage {i + 1} of {len(runs)}: {name}\n{text}" for i, (name, text) in enumerate(zip(names, texts, strict=True))
    )


def _plan_of(config: RunConfig, base: RunConfig | None, whole: RunConfig) -> str:
    dataset = open_ready(config.data, config.model.context_length)
    records = len(dataset.split(config.data.split))
    config = config.replace(train=settle(config.train, records, world_size())[0])
    train = config.train
    steps = -(-train.samples_seen // train.global_batch)
    lines = [
        f"recipe       {config.recipe}",
        f"data         {dataset.path} ({config.data.split}: {records:,} records)",
        f"budget       {train.samples_seen:,} samples = {train.samples_seen / records:,.1f} epochs = {steps:,} steps "
        f"of {train.global_batch:,}",
        *_cost_lines(config, dataset, whole),
    ]
    leaves = {k: v for k, v in flatten(config).items() if k != "before"}  # each of those is printed by itself
    before = flatten(base) if base is not None else leaves
    changed = [f"  {k} = {v}  (recipe: {before.get(k)})" for k, v in leaves.items() if before.get(k) != v]
    if changed:
        lines += ["changed", *changed]
    return "\n".join([*lines, "config", *(f"  {k} = {v}" for k, v in leaves.items())])


def _cost_lines(config: RunConfig, dataset: Dataset, whole: RunConfig) -> list[str]:
    if stage := stage_of(getattr(config.objective, "teacher", "")):
        return [f"cost         can be measured when the stage {stage}, its teacher, is trained"]
    tokenizer = planned_tokenizer(config, dataset, whole)
    measured, train = cost(config, tokenizer.vocab_size), config.train
    return [
        f"parameters   {measured.total_parameters:,} ("
        + ", ".join(f"{k} {v:,}" for k, v in measured.parameters.items())
        + ")",
        *([f"frozen       {measured.frozen}"] if measured.frozen else []),
        f"compute      {measured.flops_per_sample / 1e9:,.2f} GFLOP a sample, "
        f"{measured.flops_per_sample * train.samples_seen / 1e15:,.2f} PFLOP in all",
        f"memory       {measured.fixed_bytes / 1e9:,.2g} GB for weights and optimizer, and about "
        + memory(config, dataset, tokenizer),
    ]


def planned_tokenizer(config: RunConfig, dataset: Dataset, whole: RunConfig) -> Tokenizer:
    """The tokenizer that a run will have, also where it is that of a stage of `whole` which is not trained yet."""
    at = config
    while stage := stage_of(at.tokenizer):
        at = next(run for run in whole.before if run.stage == stage)
    if at is not config and not at.tokenizer:
        dataset = open_ready(at.data, at.model.context_length)
    return find_tokenizer(config.replace(tokenizer=at.tokenizer), dataset)


BFLOAT16 = 0.6
"""Of float32's bytes, what a step holds under autocast: measured 0.58 for a vision transformer and for a ConvNet."""


def memory(config: RunConfig, dataset: Dataset, tokenizer: Tokenizer, budget: float | None = None) -> str:
    """How a step would be taken within `budget` bytes (None: what is free here), estimated without a device.

    Not less than what a run will measure: attention weights are counted in full.
    """
    train, pairs = config.train, config.train.global_batch // world_size()
    objective = _without_content(config, tokenizer.vocab_size)
    lengths = caption_lengths(dataset.split(config.data.split), tokenizer)
    form, cached = config.model.image_format, cached_widths(config, objective)
    batches = batches_like(form, lengths, torch.device("meta"), cached)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    at = replace(situation(objective, pairs, train.checkpoint_activations), device=device)
    room = available(device) if budget is None else budget
    plain, given = Way(), Way(train.micro_batch, 1, train.checkpoint_activations)
    costs = _costs(objective, batches, pairs, train.precision, thorough=False)
    if given.checkpoint or peak(plain, costs, at) > room:
        costs = _costs(objective, batches, pairs, train.precision, thorough=True)
    way = choose(costs, at, room) if train.micro_batch < 0 else given
    return words(way, pairs, peak(way, costs, at), room)


def _costs(objective: Objective, batches: Batches, pairs: int, precision: str, thorough: bool) -> Costs:
    costs = measure(objective, batches, pairs, "float32", thorough=thorough)
    if precision == "float32":
        return costs
    lines = (costs.plain, costs.recomputed, costs.forward)
    plain, recomputed, forward = (Line(BFLOAT16 * x.constant, BFLOAT16 * x.slope) for x in lines)
    return replace(costs, plain=plain, recomputed=recomputed, forward=forward)


def _without_content(config: RunConfig, vocab_size: int) -> Objective:
    with torch.device("meta"):
        return objective_around(config, config.model.build(vocab_size))


def _measure(objective: Objective, config: RunConfig, n: int) -> tuple[float, float]:
    side, length = config.model.image_format.resolution, config.model.context_length
    meta = torch.device("meta")
    batch = Batch(
        images=torch.empty(n, 3, side, side, dtype=torch.uint8, device=meta),
        image_record=torch.arange(n),  # as lengths: shapes are decided by them, on the host
        tokens=torch.zeros(n, length, dtype=torch.long, device=meta),
        lengths=torch.full((n,), length),
        image_ids=torch.arange(n, device=meta),
        text_ids=torch.arange(n, device=meta),
        sample_ids=torch.arange(n, device=meta),
    )
    widths = cached_widths(config, objective)
    batch = replace(batch, cached={name: torch.empty(n, width, device=meta) for name, width in widths.items()} or None)
    if "image" in widths:
        batch = replace(batch, images=None, image_record=None)
    if "text" in widths:
        batch = replace(batch, tokens=None, lengths=None)
    seen: set[int] = {id(p) for p in objective.parameters()}
    kept = 0
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        storage = tensor.untyped_storage()._cdata
        if storage not in seen and not isinstance(tensor, nn.Parameter):
            seen.add(storage)
            alive.append(tensor)  # a freed storage's address may come again
            kept += tensor.untyped_storage().nbytes()
        return tensor

    objective.train()
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        encoded = objective.encode(batch) if objective.couples_pairs else {"total": objective(batch).total}
        total = torch.stack([v.float().sum() for v in encoded.values() if v.requires_grad]).sum()
        total.backward()
    return float(counter.get_total_flops()), float(kept)
