import json
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

import diptych.data.build_features as build_features
from diptych.core.distributed import shutdown
from diptych.core.errors import ConfigError, DataError
from diptych.data.build_features import Chunk, Rows, feature_table
from diptych.data.dataset import Split
from tests.data import tiny_pages, tiny_split
from tests.data.feature_rows import IMAGES, TEXTS, compute, image_row
from tests.processes import in_processes


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return tiny_split.opened(tmp_path_factory.mktemp("features") / "train", 7)


def bytes_of(folder: Path) -> bytes:
    return (folder / "rows.npy").read_bytes()


def test_a_table_is_computed_once_and_its_size_is_said(split: Split, tmp_path: Path, capsys) -> None:
    seen: list[Chunk] = []
    first = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, seen))
    assert seen == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert first.folder == tmp_path / "features" / IMAGES.fingerprint
    assert "image tower: 21 images x 4 in float32 = 0.00 MB, computed once into" in capsys.readouterr().err
    again = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, seen))
    assert len(seen) == 4
    assert torch.equal(again.gather(range(7), [2] * 7), first.gather(range(7), [2] * 7))
    assert not list(first.folder.glob("progress*"))


@pytest.mark.parametrize("spec", [IMAGES, TEXTS], ids=["image", "text"])
def test_a_kill_leaves_what_was_done_and_the_rest_is_computed(split, tmp_path, monkeypatch, capsys, spec) -> None:
    (tmp_path / "whole").mkdir()
    whole = feature_table(spec, split, tmp_path / "whole", compute(spec, split))
    monkeypatch.setattr(build_features, "SYNC_EVERY_S", 0.0)

    def deadly(chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        for i, rows in enumerate(compute(spec, split)(chunks)):
            if i == 2:
                raise Killed
            yield rows

    (tmp_path / "part").mkdir()
    with pytest.raises(Killed):
        feature_table(spec, split, tmp_path / "part", deadly)
    folder = tmp_path / "part" / "features" / spec.fingerprint
    assert not (folder / "table.json").exists()
    with (folder / "progress-0.jsonl").open("a") as file:
        file.write('{"chunk": 3, "crc": 1')  # torn
    seen: list[Chunk] = []
    found = feature_table(spec, split, tmp_path / "part", compute(spec, split, seen))
    assert seen[0] == (2 * spec.chunk, min(3 * spec.chunk, 7))
    assert f"going on in {folder}, {2 * spec.chunk} of 7 records" in capsys.readouterr().err
    assert bytes_of(found.folder) == bytes_of(whole.folder)


def test_unreadable_records_are_kept_by_name(split: Split, tmp_path: Path) -> None:
    bad = {3: "its image is rotten"}
    assert feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, bad=bad)).bad == bad
    assert feature_table(IMAGES, split, tmp_path, compute(IMAGES, split)).bad == bad


def test_damaged_chunks_are_computed_again(split: Split, tmp_path: Path, capsys) -> None:
    table = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, bad={0: "why"}))
    good = bytes_of(table.folder)
    (table.folder / "rows.npy").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    seen: list[Chunk] = []
    again = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, seen))
    assert seen == [(6, 7)]
    assert again.bad == {0: "why"}
    assert bytes_of(table.folder) == good
    assert "1 of 4 chunks" in capsys.readouterr().err
    (table.folder / "rows.npy").write_bytes(b"")
    again = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split, seen))
    assert len(seen) == 5
    assert again.gather([6], [1]).tolist() == [image_row(6, 1)]


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.full((6, 4), np.nan, np.float32), "image tower must give finite numbers in float32; records 0 to 2"),
        (np.zeros((5, 4), np.float32), "6 rows of 4 numbers must come"),
    ],
)
def test_numbers_that_are_none_are_refused(split: Split, tmp_path: Path, rows: np.ndarray, message: str) -> None:
    def wrong(chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        for _ in chunks:
            yield Rows(rows)

    with pytest.raises(DataError, match=message):
        feature_table(IMAGES, split, tmp_path, wrong)


def test_a_full_disk_is_said_beforehand(split: Split, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"must have room for 0.00 MB of vectors; got 0.00 MB.*cached_dtype=float16"):
        feature_table(IMAGES, split, tmp_path, compute(IMAGES, split))


def test_where_the_data_cannot_be_written_to_the_cache_holds_the_table(split, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    data = tmp_path / "data"
    data.mkdir()
    table = feature_table(IMAGES, split, data, compute(IMAGES, split))
    assert table.folder == tmp_path / "cache" / "features" / IMAGES.fingerprint
    assert not (data / "features").exists()


def test_a_folder_of_other_data_is_refused(split: Split, tmp_path: Path) -> None:
    table = feature_table(IMAGES, split, tmp_path, compute(IMAGES, split))
    other = tiny_split.opened(tmp_path / "other", 5)
    with pytest.raises(DataError, match="its uids are others"):
        feature_table(IMAGES, other, tmp_path, compute(IMAGES, other))
    info = json.loads((table.folder / "table.json").read_text())
    (table.folder / "table.json").write_text(json.dumps(info | {"width": 5}))
    with pytest.raises(DataError, match="Delete the folder"):
        feature_table(IMAGES, split, tmp_path, compute(IMAGES, split))


def test_texts_in_several_pieces_have_no_row_each(tmp_path: Path) -> None:
    split = tiny_pages.opened(tmp_path / "train")
    with pytest.raises(ConfigError, match=r"records of one text each; got 2 in asked1, .* Set train.frozen=live"):
        feature_table(TEXTS, split, tmp_path, compute(TEXTS, split))


def _build_together(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    split = Split("train", [next(Path(folder, "train").glob("*.tar"))])
    seen: list[Chunk] = []
    table = feature_table(IMAGES, split, Path(folder), compute(IMAGES, split, seen))
    Path(folder, f"seen-{rank}.json").write_text(json.dumps([seen, table.gather([6], [1]).tolist()]))

    def fails(chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        if rank == 1:
            raise DataError("rank 1 fails.")
        yield from compute(TEXTS, split)(chunks)

    try:
        feature_table(TEXTS, split, Path(folder), fails)
    except DataError as error:
        Path(folder, f"error-{rank}.txt").write_text(str(error))
    shutdown()


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_share_the_work_and_their_errors(tmp_path: Path) -> None:
    split = tiny_split.opened(tmp_path / "train", 7)
    in_processes(_build_together, (2, str(tmp_path)), 2)
    found = [json.loads((tmp_path / f"seen-{r}.json").read_text()) for r in (0, 1)]
    assert [f[0] for f in found] == [[[0, 2], [4, 6]], [[2, 4], [6, 7]]]
    assert found[0][1] == found[1][1] == [image_row(6, 1)]
    alone = tmp_path / "alone"
    alone.mkdir()
    table = feature_table(IMAGES, split, alone, compute(IMAGES, split))
    assert bytes_of(table.folder) == bytes_of(tmp_path / "features" / IMAGES.fingerprint)
    assert (tmp_path / "error-1.txt").read_text() == "rank 1 fails."
    assert "another one failed" in (tmp_path / "error-0.txt").read_text()
    seen: list[Chunk] = []  # one process goes on with what two began
    feature_table(TEXTS, split, tmp_path, compute(TEXTS, split, seen))
    assert seen == [(3, 6)]
