"""The machine that a run is on: set up for it, and written down."""

import ctypes
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from diptych.core.distributed import rank, world_size
from diptych.core.progress import say
from diptych.core.seeds import fold

PACKAGES = ("diptych", "torch", "numpy", "safetensors", "tokenizers", "pillow", "simplejpeg", "pyarrow", "pydantic")


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's mallopt (malloc.h)."""


def set_up(threads: int, deterministic: bool, device: torch.device | None = None) -> None:
    """Threads (0: torch's own choice), determinism, memory that is kept on a CPU, and float32 that is float32: no TF32,
    in convolutions neither."""
    if threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # torch's default is True
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    else:
        torch.backends.cudnn.benchmark = True  # batches have one shape each, so the search is paid once
    if device is not None and device.type == "cpu":
        keep_memory()


def keep_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system; whether it does.

    A step frees what the next one allocates again, and each page of it would be asked for, zeroed and mapped anew: a
    tenth of the time of a small model's step on a CPU. The process keeps the memory of its peak, no more. Left alone
    where the user has settled it (MALLOC_..., GLIBC_TUNABLES) or the C library is another.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (CPUs: avx512_bf16, AMX, or Arm's bf16)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return True
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(k) for k in ("avx512_bf16", "amx_bf16", "bf16")) or (not known and bool(check and check()))


def warn_of_slow_bfloat16(precision: str, device: torch.device) -> None:
    """Say once, before a run, that its bfloat16 is emulated and slower than float32."""
    if precision == "bfloat16" and not has_bfloat16(device):
        say(
            f"  note: this {'CPU' if device.type == 'cpu' else 'GPU'} has no bfloat16 arithmetic, so bfloat16 will be "
            "slower than float32 here. Set train.precision=float32."
        )


@lru_cache(maxsize=8)
def matrix_tflops(device: torch.device, precision: str, threads: int) -> float:
    """10^12 operations a second in square matrix products of this precision, here and now: what utilisation is of.

    The best of a few, after one to warm up; well below a second. `threads` is torch's number of them (part of the key).
    """
    side = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    state = torch.get_rng_state()
    a, b = (torch.randn(side, side, dtype=kind).to(device) for _ in range(2))  # zeros would multiply faster
    torch.set_rng_state(state)
    best = float("inf")
    for i in range(6):
        _finish(device)
        started = time.perf_counter()
        a @ b
        _finish(device)
        best = min(best, time.perf_counter() - started) if i else best
    return 2 * side**3 / best / 1e12


def seed_step(seed: int, step: int) -> None:
    """Set torch's random state as a pure function of (seed, step, rank): what makes a restart exact."""
    torch.manual_seed(fold(seed, "step", step, rank()))


def memory_mb(device: torch.device) -> float:
    """The device's peak of allocated memory, or of this process's resident memory where there is no device, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().rss) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit: what env.json holds."""
    cuda = device.type == "cuda"
    return {
        "python": sys.version.split()[0],
        "packages": {name: v for name in PACKAGES if (v := _version(name)) is not None},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "device_memory_gb": round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1) if cuda else None,
        "cuda": torch.version.cuda,
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the folder that the run was started in, "+" if files were changed since; None outside of git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "") if commit.returncode == 0 else None
