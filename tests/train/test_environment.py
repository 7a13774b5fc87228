import torch

from diptych.train.environment import describe, memory_mb, seed_step, set_up


def test_the_random_state_is_a_function_of_seed_and_step():
    drawn = []
    for seed, step in ((0, 3), (0, 4), (1, 3), (0, 3)):
        seed_step(seed, step)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_machine_is_described():
    found = describe(torch.device("cpu"))
    assert found["packages"]["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["processes"] == 1
    assert found["memory_gb"] > 0
    assert memory_mb(torch.device("cpu")) > 10


def test_set_up_and_back():
    before = torch.get_num_threads()
    set_up(0, deterministic=True)
    assert torch.get_num_threads() == before
    assert torch.are_deterministic_algorithms_enabled()
    set_up(1, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
