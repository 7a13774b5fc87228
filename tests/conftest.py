"""Test-wide settings: one torch thread (ten times faster on small machines), executed shapes, importable peers."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import pytest
import torch
from jaxtyping import install_import_hook

from tests import torchvision_on_cpu

torch.set_num_threads(1)
torchvision_on_cpu.install()
install_import_hook("diptych", "beartype.beartype")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
