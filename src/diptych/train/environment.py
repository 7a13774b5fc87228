"""The machine that a run is on: set up for it, and written down."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from diptych.core.distributed import rank, world_size
from diptych.core.seeds import fold

PACKAGES = ("diptych", "torch", "numpy", "safetensors", "tokenizers", "pillow", "simplejpeg", "pyarrow", "pydantic")


def set_up(threads: int, deterministic: bool) -> None:
    """Threads (0: torch's own choice), determinism, and float32 that is float32: no TF32, in convolutions neither."""
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


def seed_step(seed: int, step: int) -> None:
    """Set torch's random state as a pure function of (seed, step, rank): what makes a restart exact."""
    torch.manual_seed(fold(seed, "step", step, rank()))


def memory_mb(device: torch.device) -> float:
    """The device's peak of allocated memory, or this process's resident memory where there is no device, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return float(psutil.Process().memory_info().rss) / 1e6


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
