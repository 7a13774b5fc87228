"""The parts of the data engine's benchmarks; whole ones in the long tier, where their peers are at hand."""

import os
import socket
import sys
import threading

import pytest
from benchmarks.collect_server import Server
from benchmarks.curation_pool import SIDE, png, write_pool
from benchmarks.data_peers import DATA_PYTHON, data_python
from benchmarks.process_tree import Usage, run_tree
from benchmarks.settle_process import SHARD, MadePool, gathered
from benchmarks.turns import SideError, environment

from benchmarks import curation_memory, filter_rates
from diptych.data.candidates import CandidatePool
from diptych.data.curations.curation import from_toml
from diptych.data.curations.house import default
from diptych.data.decode import decode_image


def test_a_tree_of_processes_is_measured_as_a_whole():
    child = "b = bytearray(80 << 20); import time; t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    used = run_tree([sys.executable, "-c", code], environment(), memory=True)
    assert used.output == "done\n"
    assert used.cpu >= 0.2
    assert used.peak > 60 << 20
    with pytest.raises(SideError, match="ended with 3"):
        run_tree([sys.executable, "-c", "import sys; sys.exit(3)"], environment())


def test_the_server_gives_pictures_and_nothing_else():
    pictures = [b"\xff\xd8one", os.urandom(3 << 20)]
    server, (until, close) = Server(pictures), os.pipe()
    thread = threading.Thread(target=server.serve, args=(os.fdopen(until),))
    thread.start()

    def asked(line):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(line)
            found = b""
            while part := connection.recv(1 << 16):
                found += part
        head, _, body = found.partition(b"\r\n\r\n")
        return head.split(b" ")[1], body

    try:
        assert asked(b"GET /0.jpg HTTP/1.1\r\n\r\n") == (b"200", pictures[0])
        assert asked(b"GET /3.jpg HTTP/1.1\r\n\r\n") == (b"200", pictures[1])
        for line in (b"GET /robots.txt HTTP/1.1\r\n\r\n", b"GET /x.jpg HTTP/1.1\r\n\r\n", b"nothing\r\n\r\n"):
            assert asked(line) == (b"404", b"")
    finally:
        os.close(close)
        thread.join()
        server.socket.close()


def test_a_made_pool_is_a_pool(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    words = tmp_path / "captions.txt"
    words.write_text("".join(f"a caption, number {i}\n" for i in range(64)))
    monkeypatch.setenv("BENCH_CAPTIONS", str(words))
    pool = CandidatePool(write_pool(130, 60))
    assert [pool.records_of(s) for s in pool.shards] == [60, 60, 10]
    rows = [pool.rows(s) for s in pool.shards]
    assert [len(r) for r in rows] == [60, 60, 10]
    assert decode_image(rows[0].image(3)).shape == (3, SIDE, SIDE)
    assert rows[0].uids[5].tobytes().hex() == pool.dataset.split("train").uid(5)
    ids = [int(i) for r in rows for i in r.image_ids]
    assert [i for i in range(1, 130) if ids[i] == ids[i - 1]] == [50, 100]
    assert len(set(ids)) == 128
    assert write_pool(130, 60) == pool.path


def test_a_png_is_what_it_was_made_of():
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (decode_image(png(pixels)).permute(1, 2, 0).numpy() == pixels).all()


def test_recipes_are_those_of_the_house(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(curation_memory.toml("house"))
    assert [f.name for f in from_toml(path).filters] == [f.name for f in default().filters]
    path.write_text(curation_memory.toml("words"))
    assert "sharpness" not in [f.name for f in from_toml(path).filters]
    for name in ("exact", "balance", "near"):
        path.write_text(curation_memory.toml(name))
        assert len(from_toml(path).filters) == 1


def test_growth_is_by_the_record():
    taken = {n: Usage(1.0, 2.0, 100_000_000 + 120 * n, "") for n in (1000, 5000)}
    assert curation_memory.growth(taken, 1000, 5000) == 120
    assert "120 bytes a record from 1,000 to 5,000" in curation_memory._kept({"exact": taken})[0]
    assert curation_memory._rows("exact", taken)[1][3] == "120"


def test_made_hashes_are_gathered_in_shards():
    pool = MadePool(SHARD + 50)
    assert [pool.records_of(s) for s in pool.shards] == [SHARD, 50]
    found = list(gathered(150))
    assert [len(f.where) for f in found] == [150]
    assert found[0].miniatures.shape == (150, 768)
    assert len(set(found[0].hashes.tolist())) > 100


def test_cases_say_whose_they_are():
    for case in filter_rates.CASES.values():
        assert bool(case.issues) != bool(case.operator)


def test_what_must_be_set_up_is_said(monkeypatch):
    monkeypatch.setenv("BENCH_DATA_PYTHON", "/not/there")
    with pytest.raises(SideError, match="make bench-data"):
        data_python()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,given", [("collect_rates", ["--rounds", "1"]), ("curation_memory", []), ("filter_rates", [])]
)
def test_a_benchmark_runs_at_its_smallest(name, given, tmp_path, monkeypatch):
    import importlib

    if name != "curation_memory" and not DATA_PYTHON.exists():
        pytest.skip("needs the peers of `make bench-data`")
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    words = tmp_path / "captions.txt"
    words.write_text("".join(f"a caption, number {i}\n" for i in range(64)))
    monkeypatch.setenv("BENCH_CAPTIONS", str(words))
    if name == "filter_rates":
        given = ["--rounds", "1", "--pool", str(write_pool(90, 40))]
    module = importlib.import_module(f"benchmarks.{name}")
    said = module.measure(module.arguments(["--tiny", *given])).markdown()
    assert said.startswith(f"## {name}")
