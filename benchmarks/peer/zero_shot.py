"""The peer's side of `zero_shot_build`: `build_zero_shot_classifier` as its trainer's zero_shot.py calls it."""

import time
from typing import Any

import torch

from benchmarks.peer.trainer import Trainer, options

import open_clip  # isort: skip  # after benchmarks.peer.trainer, which makes torchvision importable
from open_clip_train.precision import get_autocast  # isort: skip


class Side:
    """open_clip's model, its ImageNet names and its 80 templates."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.trainer = Trainer(options(model, 1, device))
        self.device = self.trainer.device
        self.about = {"names": list(open_clip.IMAGENET_CLASSNAMES), "threads": torch.get_num_threads()}

    def export(self, folder: str) -> None:
        """Write the model for the other side."""
        self.trainer.export(folder)

    def run(self, classes: int, keep: int = 4) -> dict[str, Any]:
        """Build the classifier of the first classes; seconds, and the vectors of the first `keep`."""
        model = self.trainer.model.eval()
        started = time.perf_counter()
        with get_autocast("amp_bf16", device_type=self.device.type)():
            weights = open_clip.build_zero_shot_classifier(
                model,
                tokenizer=self.trainer.tokenizer,
                classnames=open_clip.IMAGENET_CLASSNAMES[:classes],
                templates=open_clip.OPENAI_IMAGENET_TEMPLATES,
                num_classes_per_batch=10,
                device=self.device,
                use_tqdm=False,
            )
        first = weights.T[:keep].float().cpu().tolist()
        return {"seconds": time.perf_counter() - started, "vectors": first}
