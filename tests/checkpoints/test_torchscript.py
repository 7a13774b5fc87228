"""Tests of the TorchScript reader: equal tensors, and nothing in the file is run."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from diptych.checkpoints.torchscript import is_torchscript, read_torchscript
from diptych.core.errors import CheckpointError


class Odd(nn.Module):
    """Attributes of the kinds that a TorchScript file can hold besides parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.shared = self.layers[0].bias
        self.numbers = [1, 2]
        self.scale = nn.Parameter(torch.randn(()))
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.scale * self.numbers[0]


def save(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; OpenAI's files remain
        torch.jit.save(torch.jit.script(module), path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_tensor_is_read_as_torch_would(tmp_path: Path, dtype: torch.dtype) -> None:
    module = Odd().to(dtype)
    save(module, tmp_path / "a.pt")
    assert is_torchscript(tmp_path / "a.pt")
    read = read_torchscript(tmp_path / "a.pt")
    state = module.state_dict()
    assert state.keys() <= read.keys()
    for name, tensor in state.items():
        assert torch.equal(read[name], tensor), name
        assert read[name].dtype == tensor.dtype


def test_a_plain_file_of_torch_save_is_not_torchscript(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert not is_torchscript(tmp_path / "a.pt")


def forge(path: Path, description: bytes, storages: dict[str, bytes] | None = None) -> None:
    """A file that claims to be TorchScript, with a data.pkl of our own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", description)
        for name, raw in (storages or {}).items():
            archive.writestr(f"x/data/{name}", raw)


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return (exec, (f"open({str(self.target)!r}, 'w').write('run')",))


def test_a_malicious_archive_is_refused_and_not_run(tmp_path: Path) -> None:
    forge(tmp_path / "a.pt", pickle.dumps(_Bomb(tmp_path / "run")))
    with pytest.raises(CheckpointError, match=r"call of builtins\.exec, which was not run"):
        read_torchscript(tmp_path / "a.pt")
    assert not (tmp_path / "run").exists()


class _Pickler(pickle._Pickler):  # the pure Python one can be told how to save a class
    def persistent_id(self, value: object) -> object:
        if isinstance(value, tuple) and value[:1] == ("S",):
            return ("storage", torch.FloatStorage, "0", "cpu", value[1])
        return None


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    stream = io.BytesIO()

    class Node:
        def __reduce__(self) -> object:
            return (torch._utils._rebuild_tensor_v2, (("S", count), offset, size, stride, False, None))

    _Pickler(stream, 2).dump(Node())
    return stream.getvalue()


@pytest.mark.parametrize(
    "size,stride,count,offset,message",
    [
        ((10**9,), (0,), 4, 0, "must lie in its storage"),
        ((4,), (1,), 4, 2, "out of bounds"),
        ((4,), (1,), 5, 0, "must have 20 bytes"),
        ((4,), (1,), 3, 0, "at most 12 bytes"),
    ],
)
def test_a_tensor_outside_of_its_bytes_is_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int, message: str
) -> None:
    forge(tmp_path / "a.pt", tensor_pickle(size, stride, count, offset), {"0": bytes(16)})
    with pytest.raises(CheckpointError, match=message):
        read_torchscript(tmp_path / "a.pt")


def test_damage_is_said_in_words(tmp_path: Path) -> None:
    forge(tmp_path / "a.pt", b"not a pickle")
    with pytest.raises(CheckpointError, match="must be a whole TorchScript archive"):
        read_torchscript(tmp_path / "a.pt")
