"""Checkpoints that are whole or not there, and a run that goes on from one to the same bits.

Random numbers need no saving: each step sets torch's generators from (seed, step, rank), the order of samples is a
function of (seed, n), and so the weights after a step depend on those before it and on nothing that was forgotten.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diptych.checkpoints.native import fill, write_model, write_model_around
from diptych.checkpoints.sharded import SHARDS, read_shards, stored, write_shards
from diptych.core.config import flatten
from diptych.core.distributed import barrier, broadcast_object, gather_objects, is_main
from diptych.core.errors import CheckpointError, ConfigError, TrainingError
from diptych.core.files import new_directory, sha256, write_atomic, write_json
from diptych.core.progress import say
from diptych.data.tokenize import Tokenizer
from diptych.objectives.objective import Objective
from diptych.train.config import RunConfig
from diptych.train.ema import Ema
from diptych.train.optimizer import parameter_names
from diptych.train.sharding import is_sharded, part_of

FORMATS = (1, 2)
"""1: a file each for weights, average and moments, written by the main rank. 2: `SHARDS`, written by all ranks."""
STATE, MODEL, EMA, OPTIMIZER, OBJECTIVE = (
    "state.json",
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "objective.safetensors",
)

FREE_TO_CHANGE = (
    "recipe",
    "before",
    "evals",
    "train.micro_batch",
    "train.compile",
    "train.checkpoint_activations",
    "train.sharding",
    "train.threads",
    "train.save_every_samples",
    "train.keep_checkpoints",
    "train.eval_every_samples",
    "train.log_every_samples",
    "train.val_batches",
    "train.max_nonfinite_steps",
    "train.wandb",
    "train.mlflow",
    "data.path",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "data.cache_mb",
    "data.tokens",
    "data.max_bad",
    "data.timeout_s",
)
"""Settings that a resumed run may have otherwise: they change what is watched and how fast, not what is learnt. Runs
before it are checked one by one (train/stages.py). The
data may lie elsewhere, if its fingerprint is the same. Compilation, another micro_batch or number of ranks change only
rounding, unless the model draws (dropout, drop path) or has batch norms: with other pieces or ranks it then draws and
sees otherwise."""


class RunInterrupted(TrainingError):
    """A run was asked to stop, has saved, and can be resumed. `signal` is the number of the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def save_checkpoint(
    run: Path,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    tokenizer: Tokenizer,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write RUN/checkpoints/<samples_seen>, beside first and then renamed, and drop all but the newest `keep`.

    `state` are JSON values, "samples_seen" among them. Only the main rank writes, or, where weights are sharded, each
    rank its part; all wait for each other.
    """
    path = run / "checkpoints" / f"{state['samples_seen']:012d}"
    extra = {"samples_seen": state["samples_seen"]}
    if is_sharded(objective):
        tensors = _tensors(objective, optimizer, ema)
        if is_main():
            with new_directory(path) as folder:
                (folder / SHARDS).mkdir()
                digests = _write_together(broadcast_object(folder), tensors)
                write_model_around(folder, objective.model, tokenizer, digests, extra)
                files = {f"{SHARDS}/{name}": digest for name, digest in digests.items()}
                _seal(folder, state, 2, files)
        else:
            _write_together(broadcast_object(None), tensors)
    elif is_main():
        with new_directory(path) as folder:
            write_model(folder, objective.model, tokenizer, extra, None if ema is None else ema.state)
            save_file(_on_cpu(_moments(objective, optimizer)), folder / OPTIMIZER)
            own = _on_cpu(_own_state(objective))
            if own:
                save_file(own, folder / OBJECTIVE)
            _seal(folder, state, 1, {})
    if is_main():
        for old in _folders(run)[keep:]:
            shutil.rmtree(old, ignore_errors=True)
    barrier()
    return path


def newest_checkpoint(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its state, the same on all ranks; a torn one is passed over and said."""
    found = None
    if is_main():
        for left in (run / "checkpoints").glob(".*"):  # what a kill left half written
            shutil.rmtree(left, ignore_errors=True)
        for folder in _folders(run):
            state = _whole(folder)
            if isinstance(state, dict):
                found = (folder, state)
                break
            say(f"{folder} is passed over: {state}.")
    return broadcast_object(found)


def load_checkpoint(folder: Path, objective: Objective, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Put a checkpoint's weights, averages and optimizer moments where they belong.

    Whole or sharded, written by one rank or by any number, it may be loaded whole or sharded by any number.
    """
    state = json.loads((folder / STATE).read_text())
    fill(objective.model, _read(folder, MODEL, objective.model.state_dict()))
    own = _own_state(objective)
    if own:
        objective.load_state_dict(_read(folder, OBJECTIVE, own), strict=False)
    if ema is not None:
        ema.load(_read(folder, EMA, ema.state), state["ema_updates"])
    names = parameter_names(objective, optimizer)
    known = dict(objective.named_parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    # in the weight's own layout: fused AdamW walks both by address
    for key, tensor in _read(folder, OPTIMIZER, known, moments=True).items():
        name, _, what = key.rpartition("/")
        if name not in names:
            raise CheckpointError(f"{folder}: {name} must be trainable; it is not any more. Start a new run.")
        moments.setdefault(names.index(name), {})[what] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def check_resumable(config: RunConfig, state: dict[str, Any], data_fingerprint: str) -> None:
    """Raise a ConfigError that names each setting whose change would make another run of this one."""
    if state.get("data_fingerprint") != data_fingerprint:
        raise ConfigError(
            f"a resumed run must have the data that it began with ({state.get('data_fingerprint')}); got other data "
            f"({data_fingerprint}). Start a new run."
        )
    old, new = dict(state["config"]), json.loads(json.dumps(flatten(config)))
    old |= {k: _default(config, k) for k in new.keys() - old.keys()}  # what did not exist was as it is by default
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and not is_free(k)]
    reason = _why_not_longer(config, state) if "train.samples_seen" in changed else None
    if reason is None and "train.samples_seen" in changed:
        changed.remove("train.samples_seen")
    if changed:
        words = "; ".join(f"{k} = {new.get(k)!r} (it was {old.get(k)!r})" for k in changed)
        raise ConfigError(
            f"a resumed run must keep its settings; got {words}. {reason + ' ' if reason else ''}Give the old values "
            "back, or start a new run."
        )


def truncate_log(path: Path, samples_seen: int, finished: bool = False) -> list[dict[str, Any]]:
    """Drop the lines of a JSONL file that lie beyond `samples_seen` (or were torn by a kill); the lines that stay.

    `finished`: nothing is left to train, and the last evaluation will be written again: drop that too.
    """
    if not path.exists():
        return []
    kept, records = [], []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        seen = record.get("samples_seen", 0)
        again = finished and seen == samples_seen and record.get("kind") in ("val", "eval")
        if seen <= samples_seen and not again:
            kept.append(line)
            records.append(record)
    write_atomic(path, "".join(f"{line}\n" for line in kept))
    return records


class StopRequest:
    """While open, notes SIGTERM and SIGINT instead of dying of them; a second one kills as usual."""

    def __init__(self) -> None:
        self.signal = 0
        self._process = os.getpid()
        self._old: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader worker that inherited this: a terminal's ^C reaches it too
            if number == signal.SIGTERM:
                os._exit(0)
            return
        self.signal = number
        self._restore()
        say(f"{signal.Signals(number).name}: finishing this step and saving; once more to stop at once.")

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


def _default(config: RunConfig, name: str) -> Any:
    """The default of a setting, by its flat name; None where it has none."""
    *path, leaf = name.split(".")
    at: Any = config
    for part in path:
        at = getattr(at, part, None)
    field = getattr(type(at), "model_fields", {}).get(leaf)
    return None if field is None or field.is_required() else json.loads(json.dumps(field.get_default(), default=str))


def is_free(name: str) -> bool:
    """Whether a setting, by its flat name, may be another one in a resumed run."""
    return any(name == free or name.startswith(free + ".") for free in FREE_TO_CHANGE)


def _why_not_longer(config: RunConfig, state: dict[str, Any]) -> str | None:
    """Why the budget cannot change, or None if it can."""
    if config.train.schedule != "constant" or config.train.progressive:
        return "Only schedule=constant without progressive resizing can be made longer."
    ends = (state["config"]["train.samples_seen"], config.train.samples_seen)
    if state["samples_seen"] > min(ends) - config.train.cooldown_samples:
        return "The cooldown has begun already, or the new end is past."
    return None


def _folders(run: Path) -> list[Path]:
    found = [p for p in (run / "checkpoints").glob("*") if p.name.isdigit() and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def _whole(folder: Path) -> dict[str, Any] | str:
    """The state of a checkpoint, or what is wrong with it."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        files = state["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {STATE} cannot be read ({error})"
    if state.get("format") not in FORMATS:
        raise CheckpointError(
            f"{folder} must have checkpoint format 1 or 2; got {state.get('format')!r}. Resume with the version of "
            "diptych that wrote it."
        )
    for name, digest in files:
        bare = name.removeprefix(f"{SHARDS}/")
        if Path(bare).name != bare or not (folder / name).is_file():
            return f"its {name} is missing"
        if sha256(folder / name) != digest:
            return f"its {name} is not as it was written"
    return state


def _moments(objective: Objective, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = parameter_names(objective, optimizer)
    return {
        f"{names[i]}/{what}": tensor
        for i, moments in optimizer.state_dict()["state"].items()
        for what, tensor in moments.items()
    }


def _own_state(objective: Objective) -> dict[str, Tensor]:
    return {n: t for n, t in objective.state_dict().items() if not n.startswith("model.")}


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.detach().cpu().contiguous() for n, t in tensors.items()}


def _tensors(objective: Objective, optimizer: torch.optim.Optimizer, ema: Ema | None) -> dict[str, Tensor]:
    """What this rank writes: its parts, and if it is the main one, all that is not split (its batch norms' numbers)."""
    kinds = {
        MODEL: objective.model.state_dict(),
        OBJECTIVE: _own_state(objective),
        EMA: {} if ema is None else ema.state,
        OPTIMIZER: _moments(objective, optimizer),
    }
    every = {_part(file) + name: t.detach() for file, found in kinds.items() for name, t in found.items()}
    return {n: t for n, t in every.items() if is_main() or hasattr(t, "to_local")}


def _part(file: str) -> str:
    """How the names of a file's tensors begin in shards, which hold them all: "model/"."""
    return file.partition(".")[0] + "/"


def _write_together(folder: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Each rank writes its shard; the digests of all of them."""
    shares = gather_objects(write_shards(folder / SHARDS, tensors))
    return {name: digest for share in shares for name, digest in share.items()}


def _seal(folder: Path, state: dict[str, Any], form: int, files: dict[str, str]) -> None:
    """Write what makes a checkpoint whole: its state with the digests of its files, of which `files` are known."""
    files = {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.is_file()} | files
    write_json(folder / STATE, {"format": form, **state, "files": files})
    for path in folder.rglob("*"):  # survive a power cut, before the folder gets its name
        if path.is_file():
            with open(path, "rb") as f:
                os.fsync(f.fileno())


def _read(folder: Path, file: str, like: Mapping[str, Tensor], moments: bool = False) -> dict[str, Tensor]:
    """The tensors of `file`, each split and laid out as the one in `like` that has its name and shape.

    `moments`: names are those of parameters in `like`, and behind a slash that of the moment.
    """

    def model_of(name: str, shape: torch.Size) -> Tensor | None:
        found = like.get(name.rpartition("/")[0] if moments else name)
        return found if found is not None and found.shape == shape else None

    if not (folder / SHARDS).is_dir():
        read = {}
        for name, tensor in _load(folder / file).items():
            one = model_of(name, tensor.shape)
            read[name] = tensor if one is None else torch.empty_like(one).copy_(part_of(tensor, one))
        return read
    into, part = {}, _part(file)
    for name, entry in stored(folder / SHARDS).items():
        if name.startswith(part):
            one = model_of(name.removeprefix(part), entry.shape)
            into[name] = torch.empty(entry.shape, dtype=entry.dtype) if one is None else torch.empty_like(one)
    if into:
        read_shards(folder / SHARDS, into)
    return {name.removeprefix(part): tensor for name, tensor in into.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be a whole safetensors file; got {error}. Delete its folder.") from None
