import json

import pytest
import torch
from safetensors.torch import save_file

from diptych.checkpoints.sharded import check_digests, read_shards, stored, write_shards
from diptych.core.errors import CheckpointError


def tensors() -> dict[str, torch.Tensor]:
    return {
        "model/weight": torch.randn(5, 3),
        "model/half": torch.randn(4).bfloat16(),
        "model/batches": torch.tensor(7),
        "optimizer/weight/step": torch.tensor(3.0),
    }


def split(folder, weight: torch.Tensor, at: int, leave_out: int = -1) -> None:
    """Write `weight` in two files, as two processes would."""
    for i, (start, rows) in enumerate(((0, weight[:at]), (at, weight[at:]))):
        if i != leave_out:
            info = json.dumps({"weight": {"saved_offsets": [start, 0]}})
            name = f"shard-{i + 1:05d}-model-00001-of-00001.safetensors"
            save_file({"weight": rows.contiguous()}, folder / name, metadata={"DCP_SHARDING_INFO": info})


def test_what_is_written_is_read_again_to_the_bit(tmp_path, recwarn):
    wanted = tensors()
    digests = write_shards(tmp_path, wanted)
    assert digests.keys() == {p.name for p in tmp_path.iterdir()}
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors"}
    there = stored(tmp_path)
    assert {n: (e.shape, e.dtype) for n, e in there.items()} == {n: (t.shape, t.dtype) for n, t in wanted.items()}
    found = {n: torch.empty_like(t) for n, t in wanted.items() if n != "model/half"}
    read_shards(tmp_path, found)
    assert all(torch.equal(t, wanted[n]) for n, t in found.items())
    check_digests(tmp_path, digests)
    assert not [w for w in recwarn if "single process" in str(w.message)]


def test_pieces_of_several_processes_are_one_tensor(tmp_path):
    weight = torch.randn(5, 3)
    split(tmp_path, weight, at=3)
    found = torch.empty(5, 3)
    read_shards(tmp_path, {"weight": found})
    assert torch.equal(found, weight)


@pytest.mark.parametrize(("missing", "words"), [(0, r"must hold all of weight \(15 values\); got 6"), (1, r"\(5, 3\)")])
def test_a_missing_piece_is_no_zero(tmp_path, missing, words):
    split(tmp_path, torch.randn(5, 3), at=3, leave_out=missing)
    with pytest.raises(CheckpointError, match=words):
        read_shards(tmp_path, {"weight": torch.empty(5, 3)})


def test_what_is_torn_foreign_or_another_models_is_refused(tmp_path):
    digests = write_shards(tmp_path, tensors())
    with pytest.raises(CheckpointError, match=r"model/weight with shape \(3, 5\); got shape \(5, 3\)"):
        read_shards(tmp_path, {"model/weight": torch.empty(3, 5)})
    with pytest.raises(CheckpointError, match=r"must hold model/other .* got none"):
        read_shards(tmp_path, {"model/other": torch.empty(3, 5)})
    (tmp_path / "stranger").write_text("")
    with pytest.raises(CheckpointError, match="stranger is missing, foreign"):
        check_digests(tmp_path, digests)
    (tmp_path / "stranger").unlink()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=f"{file.name} is missing, foreign or was changed"):
        check_digests(tmp_path, digests)
    with pytest.raises(CheckpointError, match="must hold whole safetensors shards"):
        stored(tmp_path)
    with pytest.raises(CheckpointError, match=r"must hold whole safetensors shards; got .*No such file"):
        read_shards(tmp_path / "nothing", {"model/weight": torch.empty(3, 5)})
