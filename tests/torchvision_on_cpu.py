"""Lets the tests import peers (open_clip, timm) that insist on torchvision, whose wheel on PyPI is built for CUDA only.

Where its compiled operators cannot be loaded, the two whose schemas are needed at import are declared without code.
Nothing in the package itself uses torchvision.
"""

import importlib.machinery
import sys
from pathlib import Path
from typing import Any

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision:
    """An import hook that acts once, when torchvision is first asked for, and then steps aside."""

    library: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None or not spec.submodule_search_locations or torch.version.cuda is not None:
            return
        try:
            for compiled in Path(next(iter(spec.submodule_search_locations))).glob("_C*.so"):
                torch.ops.load_library(str(compiled))
        except OSError:
            type(self).library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                self.library.define(schema)


def install() -> None:
    """Make `import torchvision` work under a CPU build of torch."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())  # type: ignore[arg-type]
