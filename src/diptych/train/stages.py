"""Runs one after another: each stage is a whole run in a folder of its own, and later ones begin where it ended.

``RunConfig.before`` lists them. They lie in RUN/stages/<stage>/, with checkpoints, log, doctor and model like any run,
so that each can be resumed, judged and used by itself. A stage that is done is marked by `FINISHED` and never trained
again; what later runs take from it is in its model/ (`run_folder.located`).
"""

import gc
import json
from pathlib import Path
from typing import Any

import torch

from diptych.core.config import flatten, from_json
from diptych.core.distributed import barrier, broadcast_object, init_from_environment, is_main
from diptych.core.errors import ConfigError
from diptych.core.files import write_json
from diptych.core.progress import say
from diptych.train.build import open_data
from diptych.train.config import RunConfig, stage_of
from diptych.train.freeze import objective_around
from diptych.train.loop import train
from diptych.train.optimizer import rate_factors
from diptych.train.resume import check_resumable
from diptych.train.run_folder import STAGES, begun, taken

FINISHED = "finished.json"
REHEARSED_VOCABULARY = 512
"""Any will do: no shape that a setting is checked against depends on it."""


def pretrain(
    config: RunConfig,
    run_dir: str | Path,
    resume: bool = False,
    device: torch.device | None = None,
    base: RunConfig | None = None,
) -> Path:
    """Train the runs before `config`, if there are any, and then itself in the folder `run_dir`, which is returned.

    `resume` passes over stages that are done, goes on with the one that is not, or with the last run. `base` is the
    recipe before overrides. Every run's settings are tried before the first one is trained. Raises what `loop.train`
    raises.
    """
    folder, device = Path(run_dir), device or init_from_environment()
    if config.before:
        if not resume and (begun(folder) or bool(broadcast_object((folder / STAGES).exists()))):
            raise taken(folder)
        for run in (*config.before, config):
            rehearse(run)
    for number, run in enumerate(config.before):
        home = folder / STAGES / run.stage
        say(f"stage {number + 1} of {len(config.before) + 1}: {run.stage}")
        if finished(home):
            check_unchanged(run, home)
            say(f"  {home} is done.")
            continue
        train(run, home, resume and begun(home), device, None if base is None else base.before[number])
        if is_main():
            write_json(home / FINISHED, {"stage": run.stage, "samples_seen": run.train.samples_seen})
        barrier()
        gc.collect()  # its weights and tables make room for the next one's
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if config.before:
        say(f"stage {len(config.before) + 1} of {len(config.before) + 1}: {config.recipe or 'the run itself'}")
        resume = resume and begun(folder)
    return train(config, folder, resume, device, base)


def finished(home: Path) -> bool:
    """Whether the stage in the folder `home` is done; the main rank's disk decides."""
    return bool(broadcast_object((home / FINISHED).is_file()))


def check_unchanged(run: RunConfig, home: Path) -> None:
    """Raise a ConfigError that names each setting in which `run` is not the one that is done in the folder `home`."""
    noted = broadcast_object((home / "config.json").read_text() if is_main() else None)
    done = from_json(noted)
    if not isinstance(done, RunConfig):
        raise ConfigError(
            f"{home / 'config.json'} must hold the settings of a run. Train the stage again: remove {home}."
        )
    t = run.train  # what was left open was chosen when it began
    settled: dict[str, Any] = {"global_batch": t.global_batch or done.train.global_batch}
    settled["weight_decay"] = done.train.weight_decay if t.weight_decay is None else t.weight_decay
    state = {"config": json.loads(json.dumps(flatten(done))), "data_fingerprint": "", "samples_seen": 2**62}
    try:
        check_resumable(run.replace(train=t.replace(**settled)), state, "")
    except ConfigError as error:
        raise ConfigError(f"the stage {run.stage} is done, in {home}: {error} Or remove that folder.") from None


def rehearse(run: RunConfig) -> None:
    """Find a run's mistakes early: its data is opened, and its model, objective, adapters and rates are put together
    without content. What a stage before it must bring first is not looked at."""
    open_data(run)
    if stage_of(getattr(run.objective, "teacher", "")):
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        objective = objective_around(run, run.model.build(REHEARSED_VOCABULARY))
    rate_factors(objective, run.train.rates)
