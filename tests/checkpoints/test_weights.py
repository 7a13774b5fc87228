"""Tests of reading weight files: all kinds give equal tensors, and none is executed."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diptych.checkpoints.weights import read_all, read_weights
from diptych.core.errors import CheckpointError

STATE = {"a.weight": torch.randn(3, 2), "b": torch.arange(4)}


def equal(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


def test_safetensors_and_torch_files_give_equal_tensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(OrderedDict(STATE), tmp_path / "a.pt")
    torch.save(STATE, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.pt", "old.bin"):
        assert equal(read_weights(tmp_path / name)), name


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_training_checkpoints_and_wrappers_prefixes_are_looked_through(tmp_path: Path, prefix: str) -> None:
    wrapped = {f"{prefix}{k}": v for k, v in STATE.items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    assert equal(read_weights(tmp_path / "a.pt"))


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.target)!r}, 'w').write('run')",))


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    path, bomb = tmp_path / "pytorch_model.bin", {"a": _Bomb(tmp_path / "run")}
    if kind == "bare":
        path.write_bytes(pickle.dumps(bomb, protocol=2))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"nothing was run.*safetensors"):
        read_weights(path)
    assert not (tmp_path / "run").exists()


def test_what_is_no_weight_file_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be a file"):
        read_weights(tmp_path / "none.pt")
    for name, text in (("a.safetensors", "no"), ("a.pt", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(CheckpointError, match="must be a whole"):
            read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="dictionary of tensors; got list"):
        read_weights(tmp_path / "list.pt")
    torch.save({"lr": 3}, tmp_path / "numbers.pt")
    with pytest.raises(CheckpointError, match="got int under 'lr'"):
        read_weights(tmp_path / "numbers.pt")


def test_shards_are_joined_and_doubles_refused(tmp_path: Path) -> None:
    for name, tensor in STATE.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in STATE]
    assert equal(read_all(paths))
    with pytest.raises(CheckpointError, match="holds 'b' again"):
        read_all([*paths, paths[-1]])
