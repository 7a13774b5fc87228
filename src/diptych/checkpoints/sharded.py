"""Tensors that no process holds whole, in files that each process writes for itself: torch's distributed checkpoint
(DCP) over safetensors. The offset of each piece stands in its file's header as JSON, so nothing here is a pickle.

Any number of processes reads what any other number wrote: each reads the slices that it needs.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from diptych.core.distributed import rank
from diptych.core.errors import CheckpointError
from diptych.core.files import sha256

SHARDS = "shards"
"""Name of the folder, in a checkpoint, that holds the files of all processes."""


@dataclass(frozen=True)
class Stored:
    """What a folder of shards holds under one name: the shape and type of the whole tensor."""

    shape: torch.Size
    dtype: torch.dtype


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write this rank's part of `tensors` into `folder`; the SHA-256 of the files that it wrote, by name.

    A collective. Sharded tensors (DTensor) are given by every rank, each of the others by the one rank that writes it.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter  # a second, wanted by few runs only
    from torch.distributed.checkpoint.state_dict_saver import save

    with _quiet():
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    own = f"shard-{rank() + 1:05d}-"
    return {p.name: sha256(p) for p in sorted(folder.glob(f"{own}*"))}


def stored(folder: Path) -> dict[str, Stored]:
    """What the shards in `folder` hold. Raises CheckpointError where a file is torn or a piece is missing."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    with _reading(folder):
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
        found = {}
        for name, entry in metadata.state_dict_metadata.items():
            assert isinstance(entry, TensorStorageMetadata)
            shape, pieces = torch.Size(entry.size), sum(torch.Size(c.sizes).numel() for c in entry.chunks)
            if pieces != shape.numel():
                raise CheckpointError(
                    f"{folder} must hold all of {name} ({shape.numel():,} values); got {pieces:,}. A process's file is "
                    "missing or foreign; delete this checkpoint and take an older one."
                )
            found[name] = Stored(shape, entry.properties.dtype)
    return found


def read_shards(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill the tensors `into`, whole ones or this process's part of sharded ones, from the shards in `folder`.

    No collective: each process reads for itself. Raises CheckpointError where a name is missing or a shape differs.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    there = stored(folder)
    for name, tensor in into.items():
        if name not in there or there[name].shape != tensor.shape:
            got = f"shape {tuple(there[name].shape)}" if name in there else "none"
            raise CheckpointError(
                f"{folder} must hold {name} with shape {tuple(tensor.shape)}; got {got}. It belongs to another model."
            )
    with _reading(folder):
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise CheckpointError unless `folder` holds exactly the files `digests`, as they were written."""
    names = {p.name for p in folder.iterdir()}
    changed = sorted(names ^ digests.keys()) or [n for n, d in digests.items() if sha256(folder / n) != d]
    if changed:
        raise CheckpointError(
            f"{folder} must be as it was written; {', '.join(changed)} is missing, foreign or was changed. Restore it "
            "from a copy."
        )


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise CheckpointError(f"{folder} must hold whole safetensors shards; got {error}. Delete its folder.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's note that a single process reads alone: that is what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
