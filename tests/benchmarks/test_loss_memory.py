"""One loss in a process of its own: the numbers agree with the peer's, and too little memory is said, not suffered."""

import argparse
import sys

import pytest
from benchmarks.record import available_bytes

from benchmarks import loss_memory


@pytest.fixture
def args(monkeypatch):
    monkeypatch.setenv("BENCH_PYTHON", sys.executable)
    return argparse.Namespace(device="cpu", width=64, passes=1, threads=1)


@pytest.mark.slow
def test_both_sides_measure_the_same_loss(args):
    mine, theirs = (loss_memory.one(side, "contrastive", 512, args) for side in ("diptych", "open_clip"))
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert mine["norms"] == pytest.approx(theirs["norms"], rel=1e-4)
    assert theirs["extra_mb"] > 0


def test_what_cannot_fit_is_not_tried(args):
    pairs = int((2 * available_bytes() / (4 * loss_memory.DENSE_MATRICES)) ** 0.5)
    assert "GB are free" in loss_memory.one("open_clip", "contrastive", pairs, args)["error"]


@pytest.mark.slow
def test_a_process_that_runs_out_of_its_memory_says_so(args, monkeypatch):
    monkeypatch.setattr(loss_memory, "SPARE", available_bytes() - 700_000_000)
    monkeypatch.setattr(loss_memory, "DENSE_MATRICES", 0.0)
    assert loss_memory.one("open_clip", "contrastive", 16_384, args) == {"error": "out of memory"}
