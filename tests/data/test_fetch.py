import os
import time
from pathlib import Path

import pytest

from diptych.core.errors import ConfigError, FetchError
from diptych.data.fetch import Package, fetch, fetch_all, has_client
from tests.data.fake_clients import FakeClients, deb, tgz, wheel


def test_each_client_is_asked_once_and_the_file_is_kept(clients: FakeClients) -> None:
    packages = [
        clients.serve("npm", "a-1.0.tgz", tgz({"package/x": b"1"})),
        clients.serve("apt", "b_1%3a0-1_all.deb", deb({"./x": b"2"})),
        clients.serve("pip", "c-1.0-py3-none-any.whl", wheel({"c/x": b"3"})),
    ]
    paths = fetch_all(packages)
    assert [p.name for p in paths] == ["a-1.0.tgz", "b_1%3a0-1_all.deb", "c-1.0-py3-none-any.whl"]
    assert all(p.is_relative_to(Path(os.environ["DIPTYCH_CACHE"]) / "packages") for p in paths)
    assert len(clients.calls) == 3
    assert fetch_all(packages) == paths
    assert len(clients.calls) == 3
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)


def test_what_the_clients_are_told(clients: FakeClients) -> None:
    fetch(clients.serve("npm", "a-1.0.tgz", tgz({})))
    fetch(clients.serve("apt", "b_1_all.deb", deb({})))
    fetch(clients.serve("pip", "c-1.0-py3-none-any.whl", wheel({})))
    npm, apt, pip = clients.calls
    assert "pack --ignore-scripts" in npm
    assert npm.endswith("a@1.0")
    assert apt.endswith("download -q b=1.0")
    assert "--no-deps --only-binary=:all:" in pip
    assert pip.endswith("c==1.0")


def test_a_file_that_is_not_what_was_pinned_is_refused_and_not_kept(clients: FakeClients) -> None:
    package = clients.serve("npm", "a-1.0.tgz", tgz({"package/x": b"1"}))
    (clients.store / "a-1.0.tgz").write_bytes(b"something else")
    with pytest.raises(FetchError, match=rf"must have SHA-256 {package.sha256}; got [0-9a-f]{{64}} \(14 bytes\)"):
        fetch(package)
    assert not list((Path(os.environ["DIPTYCH_CACHE"]) / "packages").iterdir())


def test_a_damaged_file_in_the_cache_is_fetched_again(clients: FakeClients) -> None:
    package = clients.serve("npm", "a-1.0.tgz", tgz({"package/x": b"1"}))
    path = fetch(package)
    path.write_bytes(path.read_bytes()[:-5])
    assert fetch(package).read_bytes() == (clients.store / "a-1.0.tgz").read_bytes()
    assert len(clients.calls) == 2


def test_a_missing_client_names_what_to_install(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    package = clients.serve("npm", "a-1.0.tgz", tgz({}))
    monkeypatch.setenv("PATH", str(clients.root / "nothing"))
    assert not has_client("npm")
    with pytest.raises(FetchError, match=r"must be fetched with npm; got a machine without it. Install Node.js"):
        fetch(package)
    debian = clients.serve("apt", "b_1_all.deb", deb({}))
    with pytest.raises(FetchError, match=r"fetched with apt-get; .* use Debian, Ubuntu or a container"):
        fetch(debian)


def test_a_client_that_fails_is_quoted(clients: FakeClients) -> None:
    package = clients.serve("apt", "b_1_all.deb", deb({}))
    clients.write("apt-get", "echo 'E: Unable to locate package b' >&2; exit 100")
    with pytest.raises(
        FetchError, match=r"status 100 and said:\n    E: Unable to locate package b\n(.|\n)*apt-get update"
    ):
        fetch(package)
    other = clients.serve("npm", "a-1.0.tgz", tgz({}))
    clients.write("npm", "exit 3")
    with pytest.raises(FetchError, match=r"status 3 and said nothing.\nCheck that `npm` works here"):
        fetch(other)


def test_a_client_that_brings_another_file_is_told_apart(clients: FakeClients) -> None:
    package = clients.serve("npm", "a-1.0.tgz", tgz({}))
    (clients.store / "a-1.0.tgz").rename(clients.store / "a-1.1.tgz")
    with pytest.raises(FetchError, match=r"must come as a-1.0.tgz; npm brought a-1.1.tgz"):
        fetch(package)


def test_a_client_that_hangs_is_ended_with_its_children(clients: FakeClients) -> None:
    package = clients.serve("npm", "a-1.0.tgz", tgz({}))
    clients.write("npm", f"(sleep 30; touch {clients.root}/alive) & wait")
    started = time.monotonic()
    with pytest.raises(FetchError, match=r"must arrive within 0 s; npm was still at it"):
        fetch(package, timeout_s=0.3)
    assert time.monotonic() - started < 10
    assert not list((Path(os.environ["DIPTYCH_CACHE"]) / "packages").iterdir())


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "--config=evil"),
        ("name", "../a"),
        ("version", "-1"),
        ("filename", "../a.tgz"),
        ("filename", "a-1.0.tar.gz"),
        ("sha256", "abc"),
    ],
)
def test_a_pin_that_could_be_an_option_a_path_or_code_is_refused(field: str, value: str) -> None:
    good = {"client": "pip", "name": "a", "version": "1.0", "filename": "a-1.0.whl", "sha256": "0" * 64}
    Package(**good)
    with pytest.raises(ConfigError, match=field):
        Package(**{**good, field: value})
