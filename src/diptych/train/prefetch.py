"""Batches to the device while it computes: the copies have a stream of their own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from diptych.core.batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device, channels_last: bool = False) -> Iterator[Batch]:
    """Each batch on `device`, its images in the memory format asked for.

    On CUDA a batch is copied on a second stream. The host asks for batch n + 1 while the device is still at batch n
    (steady.py), so the copy runs beside it, and the step waits for the copy on the device and not here. Elsewhere the
    batches are merely placed. Copies overlap only from pinned memory, where the loader's workers leave them.
    """

    def place(batch: Batch) -> Batch:
        batch = batch.to(device)
        if channels_last and batch.images is not None:
            batch = replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        return batch

    if device.type == "cuda":
        yield from _beside(batches, place, torch.cuda.Stream(device))
    else:
        yield from map(place, batches)


def _beside(batches: Iterable[Batch], place: Callable[[Batch], Batch], stream: torch.cuda.Stream) -> Iterator[Batch]:
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = place(batch)
        now = torch.cuda.current_stream(stream.device)
        now.wait_stream(stream)
        for tensor in tensors(moved):
            if tensor.is_cuda:
                tensor.record_stream(now)  # or its memory could be given to the next copy while it is still read
        yield moved


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch."""
    own = [v for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor)]
    return own + list((batch.cached or {}).values())
