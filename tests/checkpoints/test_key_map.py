"""Tests of the rules that rename, transpose, split and join tensors: there and back is the same to the bit."""

import pytest
import torch

from diptych.checkpoints.key_map import Rule, check_names, check_shapes, joined, same, to_ours, to_theirs
from diptych.core.errors import CheckpointError

RULES = [
    *same([("norm", "ln")]),
    *joined("attention", lambda s: f"attn.in_proj_{s}"),
    Rule(("projection.weight",), "proj", kind="transposed"),
    Rule(("probe",), "head.probe", shape=(1, 1, 4)),
    Rule(("scale",), "logit_scale", shape=(1,)),
]


def ours() -> dict[str, torch.Tensor]:
    state = {
        f"attention.{n}_proj.{s}": torch.randn((4, 4) if s == "weight" else (4,))
        for n in "qkv"
        for s in ("weight", "bias")
    }
    return state | {
        "norm.weight": torch.randn(4),
        "norm.bias": torch.randn(4),
        "projection.weight": torch.randn(2, 4),
        "probe": torch.randn(1, 4),
        "scale": torch.randn(()),
    }


def test_there_and_back_is_the_same_to_the_bit() -> None:
    state = ours()
    theirs = to_theirs(RULES, state)
    assert theirs["attn.in_proj_weight"].shape == (12, 4)
    assert theirs["proj"].shape == (4, 2)
    assert theirs["head.probe"].shape == (1, 1, 4)
    assert theirs["logit_scale"].shape == (1,)
    back = to_ours(RULES, theirs, {k: v.shape for k, v in state.items()})
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)
    again = to_theirs(RULES, back)
    assert all(torch.equal(again[k], theirs[k]) for k in theirs)


def test_halves_become_single_precision_and_buffers_are_passed_over() -> None:
    state = ours()
    theirs = {k: v.half() for k, v in to_theirs(RULES, state).items()} | {"position_ids": torch.arange(3)}
    back = to_ours(RULES, theirs, {k: v.shape for k, v in state.items()}, ignore=r"position_ids$")
    assert all(v.dtype == torch.float32 for v in back.values())
    with pytest.raises(CheckpointError, match=r"Not known \(1\): position_ids"):
        to_ours(RULES, theirs, {k: v.shape for k, v in state.items()})


def test_names_and_shapes_that_do_not_fit_are_shown() -> None:
    with pytest.raises(
        CheckpointError, match=r"Missing \(1\): norm\.bias.*Not known \(1\): norm\.bia\..*mean 'norm\.bias'"
    ):
        check_names({"norm.weight", "norm.bia"}, {"norm.weight", "norm.bias"}, "the checkpoint")
    with pytest.raises(CheckpointError, match=r"a: file \(2,\), model \(3,\)"):
        check_shapes({"a": torch.zeros(2)}, {"a": torch.Size([3])})
    state = ours()
    theirs = to_theirs(RULES, state)
    theirs["proj"] = theirs["proj"].T.contiguous()
    with pytest.raises(CheckpointError, match=r"projection\.weight: file \(4, 2\), model \(2, 4\)"):
        to_ours(RULES, theirs, {k: v.shape for k, v in state.items()})


def test_a_tensor_of_ours_without_a_place_in_theirs_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"Not known \(1\): scale_1"):
        to_theirs(RULES, ours() | {"scale_1": torch.zeros(4)})
