"""Low-rank adapters in a model's state, and the plain weights that they come to: W + scale B A, without `peft`.

A model with adapters (`train/lora.py`) keeps the linear map NAME as ``NAME.base_layer.weight``, with
``NAME.lora_A.default.weight`` (r, in) and ``NAME.lora_B.default.weight`` (out, r) beside it. Checkpoints hold these, so
that a run goes on to the same bits; whoever loads a model to use it gets the merged ones.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diptych.core.errors import CheckpointError

ADAPTER = "default"
"""The name that `peft` gives to a module's only adapter."""
BASE, A, B = ".base_layer.", f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return ".lora_A." in name or ".lora_B." in name


def adapter_scale(model: nn.Module) -> float | None:
    """By what the products B A of a model's adapters are multiplied; None where there are no adapters."""
    adapted: list[Any] = [m for m in model.modules() if hasattr(m, "lora_A")]
    found = {float(m.scaling[ADAPTER]) for m in adapted}
    if len(found) > 1:
        raise CheckpointError(f"adapters must have one scale (alpha / rank); got {sorted(found)}. Use one LoraConfig.")
    return found.pop() if found else None


def merged(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The plain state: each adapted weight is W + scale B A, summed in float32; names are as without adapters.

    Raises CheckpointError for an adapter without its map.
    """
    plain = {}
    for name, tensor in state.items():
        if is_adapter(name):
            if name.partition(".lora_")[0] + f"{BASE}weight" not in state:
                raise CheckpointError(
                    f"an adapter must stand beside its linear map; {name} has none. Restore the file."
                )
            continue
        module = name.removesuffix(f"{BASE}weight")
        if module != name and module + A in state:
            down, up = state[module + A].float(), state[module + B].float()
            with torch.autocast(down.device.type, enabled=False):
                tensor = (tensor.float() + scale * (up @ down)).to(tensor.dtype)
        plain[name.replace(BASE, ".")] = tensor
    return plain
