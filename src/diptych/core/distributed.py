"""Several processes as one: who am I, and what do the others hold. Everything is a no-op in a single process."""

import gc
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.core.errors import ConfigError


def initialised() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if initialised() else 0


def world_size() -> int:
    """How many processes there are, 1 in a single process."""
    return dist.get_world_size() if initialised() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def init_from_environment(timeout_minutes: float = 120) -> torch.device:
    """Join the group that torchrun describes (none: a single process) and pick this rank's device.

    `timeout_minutes` is how long ranks wait for each other, evals and packing by the main one included.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise ConfigError(
            f"each process must have a GPU of its own; got process {local} of this machine and "
            f"{torch.cuda.device_count()} GPU(s). Lower --nproc-per-node, or hide the GPUs (CUDA_VISIBLE_DEVICES=)."
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not initialised():
        # the group must know the device, or its barriers guess one from the rank
        which = {"backend": "nccl", "device_id": device} if cuda else {"backend": "gloo"}
        dist.init_process_group(timeout=timedelta(minutes=timeout_minutes), **which)
    return device


def shutdown() -> None:
    """Leave the group, if there is one. Ranks that end well wait for each other; one that fails waits for none.

    What DDP left is freed first: it holds threads of the group, and a process that ends before them is aborted.
    """
    if not initialised():
        return
    gc.collect()
    if sys.exc_info()[0] is None:
        with suppress(RuntimeError):  # another rank has failed, and says so itself
            dist.barrier()
    dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if initialised():
        dist.barrier()


def broadcast_object(value: Any, source: int = 0) -> Any:
    """Rank `source`'s `value`, on every rank. Only for values that this run itself made (it is pickled by torch)."""
    if not initialised():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value`, in rank order, on every rank. Only for values that this run itself made."""
    if not initialised():
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def broadcast_(tensors: list[Tensor], source: int = 0) -> None:
    """Overwrite `tensors` in place with those of rank `source`."""
    if initialised():
        for tensor in tensors:
            dist.broadcast(tensor, src=source)


def all_sum(value: Tensor) -> Tensor:
    """The sum of `value` over ranks, without gradient."""
    if not initialised():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


class _Gather(torch.autograd.Function):
    """Concatenation over ranks whose gradient is summed over ranks: the exact adjoint.

    torch.distributed.nn.functional.all_gather does the same with an all-to-all that gloo lacks.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]


def gather_with_grad(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, differentiable: each rank's rows get the sum of all ranks' gradients.

    Every rank must bring equally many rows.
    """
    return x if not initialised() else _Gather.apply(x)


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, without gradient."""
    if not initialised():
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def all_max(value: Tensor) -> Tensor:
    """The largest of `value` over ranks, element by element, without gradient."""
    if not initialised():
        return value
    value = value.detach().clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def sum_to_owners(x: Tensor) -> Tensor:
    """Of the sum of `x` (one block of rows a rank) over ranks, this rank's own rows. Overwrites `x`."""
    if not initialised():
        return x
    size = x.shape[0] // world_size()
    if dist.get_backend() == "nccl":
        mine = x.new_empty(size, *x.shape[1:])
        dist.reduce_scatter_tensor(mine, x)
        return mine
    dist.all_reduce(x)  # not every gloo can scatter sums
    return x[rank() * size : (rank() + 1) * size].clone()


class Passing:
    """A tensor on its way from rank to rank."""

    def __init__(self, sent: Tensor, coming: Tensor, works: list[Any]) -> None:
        self._sent = sent  # must live until it has left
        self._coming = coming
        self._works = works

    def wait(self) -> Tensor:
        """What the next rank has passed on, once it is here."""
        for work in self._works:
            work.wait()
        return self._coming


def pass_on(x: Tensor) -> Passing:
    """Start sending `x` to the rank before this one, and receiving its like from the one after it. A collective."""
    if not initialised() or world_size() == 1:
        return Passing(x, x, [])
    x, coming = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    before, after = (rank() - 1) % world_size(), (rank() + 1) % world_size()
    works = dist.batch_isend_irecv([dist.P2POp(dist.isend, x, before), dist.P2POp(dist.irecv, coming, after)])
    return Passing(x, coming, works)
