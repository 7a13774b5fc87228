import psutil
import pytest
import torch

from diptych.train import environment
from diptych.train.environment import (
    describe,
    has_bfloat16,
    keep_memory,
    matrix_tflops,
    memory_mb,
    seed_step,
    set_up,
    warn_of_slow_bfloat16,
)

CPU = torch.device("cpu")


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


def test_memory_that_is_freed_is_kept():
    if not keep_memory():
        pytest.skip("mallopt is glibc's")
    before = memory_now()
    tensor = torch.ones(2**24)
    used = memory_now() - before
    del tensor
    assert memory_now() - before > 0.9 * used - 1e6


def memory_now() -> int:
    return psutil.Process().memory_info().rss


def test_the_users_own_allocator_settings_stand(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_memory()


def test_the_matrix_rate_draws_nothing_and_is_measured_once():
    state = torch.get_rng_state()
    rate = matrix_tflops(CPU, "float32", torch.get_num_threads())
    assert 1e-4 < rate < 1e3
    assert torch.equal(torch.get_rng_state(), state)
    assert matrix_tflops(CPU, "float32", torch.get_num_threads()) == rate


def test_slow_bfloat16_is_said(monkeypatch, capsys):
    warn_of_slow_bfloat16("float32", CPU)
    monkeypatch.setattr(environment.torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert not has_bfloat16(CPU)
    warn_of_slow_bfloat16("float32", CPU)
    assert capsys.readouterr().err == ""
    warn_of_slow_bfloat16("bfloat16", CPU)
    assert "slower than float32 here. Set train.precision=float32" in capsys.readouterr().err
    monkeypatch.setattr(environment.torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert has_bfloat16(CPU)
