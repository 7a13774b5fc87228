"""The folder of a run: opened once, refused to a second run, cut back to its checkpoint when it goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from diptych.core.config import to_dict, to_json
from diptych.core.distributed import barrier, broadcast_object, is_main
from diptych.core.errors import ConfigError
from diptych.core.files import write_atomic, write_json
from diptych.core.progress import say
from diptych.data.dataset import Dataset
from diptych.train.config import RunConfig, stage_of
from diptych.train.doctor import Finding
from diptych.train.environment import describe, matrix_tflops
from diptych.train.resume import check_resumable, newest_checkpoint, truncate_log

LOGS = ("metrics.jsonl", "doctor.jsonl")
STAGES = "stages"
"""Name of the folder, in a run's, that holds the runs before it."""


def default_folder(config: RunConfig) -> Path:
    """runs/<recipe>-<hash of the config>: the same settings name the same folder, so nothing is trained twice."""
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"{(config.recipe or 'run').replace(':', '-')}-{digest}"


def begun(folder: Path) -> bool:
    """Whether a run began in `folder`; the main rank's disk decides."""
    return bool(broadcast_object((folder / "config.json").exists()))


def taken(folder: Path) -> ConfigError:
    """The error for a new run in a folder that holds one."""
    return ConfigError(
        f"a new run must have a folder of its own; {folder} holds one already. Go on with it: --resume. "
        "Or name another: --run DIR."
    )


def find_start(
    folder: Path, config: RunConfig, resume: bool, data_fingerprint: str
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a run goes on from: (its folder, its state), or None for a run from the beginning.

    The same on all ranks; nothing is written. Raises ConfigError where a new run would write into another's folder, or
    a resumed one would be another run.
    """
    exists = begun(folder)
    if exists and not resume:
        raise taken(folder)
    found = newest_checkpoint(folder) if resume and exists else None
    if found is not None:
        check_resumable(config, found[1], data_fingerprint)
    elif resume:
        say(f"{folder} holds no whole checkpoint to go on from: the run starts at the beginning.")
    return found


def located(config: RunConfig, folder: Path) -> RunConfig:
    """`config` as the run in `folder` carries it out: model folders in the place of "stage:NAME", and no runs before.

    Stages lie in the run's own folder, or beside it where it is a stage itself. Raises ConfigError where one is not
    there yet.
    """

    def place(reference: str) -> str:
        name = stage_of(reference)
        if not name:
            return reference
        for home in (folder / STAGES / name, folder.parent / name):
            if (home / "model").is_dir():
                return str(home / "model") + reference[len(f"stage:{name}") :]
        raise ConfigError(
            f"{reference} must have been trained; {folder / STAGES / name} holds no model. Train the whole: "
            "`diptych pretrain`, or diptych.train.stages.pretrain."
        )

    objective = config.objective
    if stage_of(getattr(objective, "teacher", "")):
        objective = objective.replace(teacher=place(getattr(objective, "teacher")))  # noqa: B009  # not all have one
    parts = {name: place(reference) for name, reference in config.parts.items()}
    found = {"init": place(config.init), "tokenizer": place(config.tokenizer), "parts": parts, "objective": objective}
    return config.replace(before=(), **found)


def open_run(
    folder: Path,
    config: RunConfig,
    base: RunConfig | None,
    found: tuple[Path, dict[str, Any]] | None,
    dataset: Dataset,
    device: torch.device,
) -> None:
    """Make the folder of a run, or note in it on which machine it goes on from the checkpoint `found`."""
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f"-{found[0].name}" if found is not None else ""
        rate = matrix_tflops(device, config.train.precision, torch.get_num_threads())
        found_here = describe(device) | {"matrix_tflops": round(rate, 3), "data_fingerprint": dataset.fingerprint}
        write_json(folder / f"env{suffix}.json", found_here)
        if found is None:
            write_atomic(folder / "recipe.json", to_json(base or config))
        write_atomic(folder / "config.json", to_json(config))
        _note_data(folder, dataset)
    barrier()  # other ranks write into it too


def _note_data(folder: Path, dataset: Dataset) -> None:
    """Write data.json, what the report says of the data: counts of splits and rejects, captions, fingerprint."""
    info = dataset.info
    write_json(
        folder / "data.json",
        {
            "path": str(dataset.path),
            "fingerprint": dataset.fingerprint,
            "source": info.get("source", {}).get("name", ""),
            "splits": {name: split["records"] for name, split in info["splits"].items()},
            "seen": info.get("seen"),
            "kept": info.get("kept"),
            "rejected": info.get("rejected", {}),
            **{f"captions_{k}": v for k, v in info.get("captions", {}).items()},
        },
    )


def cut_logs(folder: Path, samples_seen: int, finished: bool) -> list[dict[str, Any]]:
    """Drop what the logs say beyond a checkpoint, so that no line comes twice; the records that stay."""
    metrics, _ = (truncate_log(folder / name, samples_seen, finished) for name in LOGS)
    return metrics


def note_finding(folder: Path, finding: Finding) -> None:
    """Tell the user what the doctor found, and keep it in doctor.jsonl."""
    say(f"doctor, at {finding.samples_seen:,} samples: {finding}")
    with (folder / "doctor.jsonl").open("a") as file:
        file.write(json.dumps(finding.to_dict(), ensure_ascii=False) + "\n")


def note_quarantine(folder: Path, unreadable: dict[str, str]) -> None:
    """Keep the names of records that could not be read, and why, in quarantine.jsonl; each rank adds its own."""
    if not unreadable:
        return
    new = unreadable.keys() - _quarantine(folder)
    with (folder / "quarantine.jsonl").open("a") as file:
        for key in sorted(new):
            file.write(json.dumps({"key": key, "reason": unreadable[key]}, ensure_ascii=False) + "\n")


def quarantined(folder: Path) -> int:
    """How many records of the data could not be read so far, in this run and before it was resumed."""
    return len(_quarantine(folder))


def how_to_resume(folder: Path, samples_seen: int) -> str:
    """What the user needs to know when a run has been asked to stop."""
    return (
        f"the run was asked to stop; it is saved at {samples_seen:,} samples in {folder}. Go on with the same command "
        "and --resume."
    )


def _quarantine(folder: Path) -> set[str]:
    path = folder / "quarantine.jsonl"
    keys = set()
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            keys.add(json.loads(line)["key"])
        except ValueError:  # torn by a kill, or another rank is writing it now
            continue
    return keys
