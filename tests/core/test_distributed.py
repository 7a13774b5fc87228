import pytest
import torch
import torch.multiprocessing as mp

from diptych.core import distributed


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
    distributed.barrier()
    torch.save(x.grad, f"{out}/{rank}")
    distributed.shutdown()


@pytest.mark.dist
def test_the_gradient_of_a_gather_is_summed_over_ranks(tmp_path):
    mp.spawn(_work, (29611, str(tmp_path)), nprocs=2)
    # each rank weighs row i by w_i (rank + 1); a row's owner receives the sum over ranks: w_i (1 + 2)
    assert torch.load(tmp_path / "0").flatten().tolist() == [3, 6]
    assert torch.load(tmp_path / "1").flatten().tolist() == [9, 12]


def test_alone_everything_is_the_identity():
    x = torch.ones(2)
    assert distributed.gather_with_grad(x) is x
    assert distributed.gather(x) is x
    assert distributed.all_sum(x) is x
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
