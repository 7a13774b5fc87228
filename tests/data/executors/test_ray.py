"""Ray: what the pool gives, byte for byte; errors as they are; nothing is left running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.core.errors import ConfigError, DataError
from diptych.data.curate import CurationConfig, curate
from diptych.data.executors import ray as module
from diptych.data.executors.executor import Executor, executor
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.filters.score import ScoreConfig
from diptych.data.web.download import DownloadConfig, download
from diptych.data.web.safe_http import WebLimits
from tests.data.curation_pools import all_rows, packed_pool
from tests.data.executors.test_pool import squared
from tests.data.pictures import png
from tests.data.web.hostile import says, serving


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    made = executor("ray", 2)
    yield made
    made.close()


def test_without_its_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"diptych\[ray\]"):
        list(executor("ray").map(squared, [1, 2]))
    assert list(executor("ray").map(squared, [])) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_and_errors_are_those_of_the_pool(cluster, monkeypatch) -> None:
    assert list(cluster.map(squared, range(12))) == [x * x for x in range(12)]
    with pytest.raises(DataError, match="x must be at least 0; got -1") as found:
        list(cluster.map(squared, [1, 2, -1, 3]))
    assert type(found.value) is DataError
    monkeypatch.setattr(module, "TRIES", 0)
    with pytest.raises(DataError, match="what is done is kept"):
        list(cluster.map(squared, [1, 13, 2]))
    assert next(iter(cluster.map(squared, range(100)))) == 0  # who stops early leaves nothing behind
    assert list(cluster.map(squared, [3])) == [9]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_curation_is_the_pools_byte_for_byte(cluster, tmp_path) -> None:
    from diptych.data.candidates import CandidatePool, write_scores

    data = packed_pool(tmp_path / "d", [[f"a caption {'word ' * (i % 5)}"] for i in range(23)])
    for rows in all_rows(data):
        write_scores(CandidatePool(data), "quality", rows, rows.uids[:, 0].astype(float))
    filters = (CaptionLengthConfig(max_words=5), ScoreConfig(fraction=0.5))
    for name, workers in engines(cluster):
        curate(data, CurationConfig(filters=filters), tmp_path / name, workers)
    assert same_files(tmp_path / "pool", tmp_path / "ray") >= {"selection.npy", "table.parquet", "curation.json"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_download_is_the_pools_byte_for_byte(cluster, tmp_path) -> None:
    behaviours = {f"/{i}.png": says(png(i), Content_Type="image/png") for i in range(9)}
    with serving(behaviours) as (port, _):
        links = tmp_path / "links.csv"
        rows = [f"http://127.0.0.1:{port}/{i}.png,picture {i}" for i in range(10)]  # of which the last is not there
        links.write_text("url,caption\n" + "\n".join(rows) + "\n")
        web = WebLimits(private_hosts=frozenset({f"127.0.0.1:{port}"}))
        config = DownloadConfig(web=web, piece=4, threads=2, host_interval=0.0)
        reports = [download(links, tmp_path / name, workers, config) for name, workers in engines(cluster)]
    assert [(r.links, r.kept) for r in reports] == [(10, 9)] * 2
    assert same_files(tmp_path / "pool", tmp_path / "ray") >= {"00000.tar", "00002.parquet", "00002.json"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_server_is_left_when_the_process_ends() -> None:
    pytest.importorskip("ray")
    code = (
        "import ray; from diptych.data.executors.executor import executor\n"
        "print(list(executor('ray', 1).map(abs, [-1, 2])))\n"
        "print(ray.is_initialized())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert said.stdout.split("\n")[:2] == ["[1, 2]", "False"], said.stderr


def engines(cluster: Executor) -> list[tuple[str, Executor]]:
    assert isinstance(cluster, module.Ray)
    return [("pool", executor("pool", 2)), ("ray", cluster)]


def same_files(one: Path, other: Path) -> set[str]:
    """The names of the files of two folders, which must be the same ones with the same bytes."""
    found = [{str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (one, other)]
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    return set(found[0])
