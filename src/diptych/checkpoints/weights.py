"""Reading other people's weight files: tensors by name, and never a line of code run."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diptych.checkpoints.torchscript import is_torchscript, read_torchscript
from diptych.core.errors import CheckpointError

_NESTS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file on the CPU: safetensors, a `torch.save` of tensors, or a TorchScript archive.

    Training checkpoints give their model's tensors; the prefixes that DDP and torch.compile put before names go.
    Raises CheckpointError where the file is missing, damaged, or holds anything that would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights must be a file; got {path}, which is not one. Check the path.")
    if path.suffix == ".safetensors":
        return _plain(_read_safetensors(path))
    if is_torchscript(path):
        return _plain(read_torchscript(path))
    return _plain(_tensors_of(_read_pickle(path), path))


def read_all(paths: list[Path]) -> dict[str, Tensor]:
    """The tensors of several weight files (shards) as one dictionary. A name in two of them is an error."""
    state: dict[str, Tensor] = {}
    for path in paths:
        part = read_weights(path)
        if twice := state.keys() & part.keys():
            raise CheckpointError(f"each tensor must lie in one shard; {path} holds {min(twice)!r} again.")
        state |= part
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be a whole safetensors file; got {error}. Fetch it again.") from None


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} must hold tensors and nothing that runs code when it is read; it was refused and nothing was run "
            f"({reason}). Ask whoever made it for a .safetensors file."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{path} must be a whole file of torch.save; got {reason}. Fetch it again.") from None


def _tensors_of(value: Any, path: Path) -> dict[str, Tensor]:
    for key in _NESTS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict) or not value:
        raise CheckpointError(f"{path} must hold a dictionary of tensors; got {type(value).__name__}.")
    strange = [k for k, v in value.items() if not isinstance(v, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path} must hold a dictionary of tensors; got {type(value[strange[0]]).__name__} under {strange[0]!r}."
        )
    return {str(k): v for k, v in value.items()}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:  # either may be the outer one
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
