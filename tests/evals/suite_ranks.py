"""What the processes of a shared suite do: started by `test_suite.py`, each writes down what it did."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from diptych.evals import suite
from diptych.evals.find import config_for
from tests.evals import fakes
from tests.processes import in_processes


class OneSplit:
    """A dataset of one split."""

    def __init__(self, split, path="data/things", fingerprint="0" * 32):
        self.splits, self.path, self.fingerprint = {split.name: split}, path, fingerprint

    def split(self, name):
        return self.splits[name]

    def held_out(self, name=""):
        return name or "val"


def run_together(folder: Path, world: int = 2) -> list[dict]:
    """Run two tasks on several processes into FOLDER; what each of them did."""
    in_processes(_one, (world, str(folder)), world)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def _one(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    data = OneSplit(fakes.labelled(40, 10))
    configs = [config_for("retrieval", data="d"), config_for("zero_shot", data="d", templates="plain")]
    model = fakes.model(fakes.Embeds, True, by_label=True)
    outcomes = list(suite.run(model, [suite.Task(c, data, "val") for c in configs], folder))
    did = {"tasks": [o.task.name for o in outcomes], "images": model.memory.computed["image"]}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(did))
    dist.destroy_process_group()
