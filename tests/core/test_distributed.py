from pathlib import Path

import pytest
import torch

from diptych.core import distributed
from diptych.core.errors import ConfigError
from tests.processes import in_processes


def _work(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    x = torch.full((2, 1), float(rank + 1), requires_grad=True)
    everyone = distributed.gather_with_grad(x)
    (everyone * torch.tensor([[1.0], [2.0], [3.0], [4.0]]) * (rank + 1)).sum().backward()
    assert everyone.flatten().tolist() == [1, 1, 2, 2]
    assert distributed.gather(x).flatten().tolist() == [1, 1, 2, 2]
    assert distributed.all_sum(torch.tensor(1.0 + rank)).item() == 3
    assert distributed.broadcast_object({"from": rank}) == {"from": 0}
    ones = torch.full((2,), float(rank))
    distributed.broadcast_([ones])
    assert ones.tolist() == [0, 0]
    distributed.barrier()
    torch.save(x.grad, f"{out}/{rank}")
    distributed.shutdown()
    assert not distributed.initialised()
    distributed.shutdown()  # again: nothing to leave


def _fail_alone(rank: int, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{out}/meeting", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    try:
        if rank == 1:
            raise ValueError("alone")
    except ValueError:
        distributed.shutdown()  # must not wait for rank 0
    else:
        distributed.shutdown()  # waits for rank 1, and learns that it has gone
    assert not distributed.initialised()
    Path(out, f"left-{rank}").touch()


@pytest.mark.dist
def test_the_gradient_of_a_gather_is_summed_over_ranks(tmp_path):
    in_processes(_work, (29611, str(tmp_path)), 2)
    # each rank weighs row i by w_i (rank + 1); a row's owner receives the sum over ranks: w_i (1 + 2)
    assert torch.load(tmp_path / "0").flatten().tolist() == [3, 6]
    assert torch.load(tmp_path / "1").flatten().tolist() == [9, 12]


@pytest.mark.dist
@pytest.mark.slow
def test_a_rank_that_fails_leaves_without_waiting(tmp_path):
    in_processes(_fail_alone, (str(tmp_path),), 2)
    assert {p.name for p in tmp_path.glob("left-*")} == {"left-0", "left-1"}


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="a GPU of its own; got process 2 of this machine and 2 GPU"):
        distributed.init_from_environment()


def test_alone_everything_is_the_identity():
    x = torch.ones(2)
    assert distributed.gather_with_grad(x) is x
    assert distributed.gather(x) is x
    assert distributed.all_sum(x) is x
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
    distributed.broadcast_([x])
    distributed.shutdown()
