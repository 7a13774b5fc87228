"""Our side of `zero_shot_build`: `diptych.evals.class_guesses.class_vectors` in bfloat16, as the peer's runs in it."""

import time
from typing import Any

import torch

from benchmarks.ours.trainer import model_of
from diptych.evals.class_guesses import class_vectors
from diptych.evals.prompts import read_templates


class Side:
    """The same weights, the same names, our copy of the 80 templates."""

    def __init__(self, folder: str, names: list[str], device: str = "cpu") -> None:
        self.pretrained = model_of(folder).to(device)
        self.names = tuple(names)
        self.templates, _ = read_templates("clip", None)
        self.about = {"templates": len(self.templates), "threads": torch.get_num_threads()}

    def run(self, classes: int, keep: int = 4) -> dict[str, Any]:
        """Build the classifier of the first classes; seconds, and the vectors of the first `keep`."""
        started = time.perf_counter()
        with torch.autocast(self.pretrained.device.type, torch.bfloat16):
            vectors = class_vectors(self.pretrained, self.names[:classes], self.templates)
        first = vectors[:keep].float().cpu().tolist()
        return {"seconds": time.perf_counter() - started, "vectors": first}
