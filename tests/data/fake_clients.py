"""Tiny archives, and clients that bring them: a fake npm and apt-get on PATH, a fake pip on PYTHONPATH."""

import gzip
import hashlib
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from diptych.data.fetch import Client, Package

CLIENT = """#!/bin/sh
echo "$0 $@" >> {log}
{body}
"""


def tar_bytes(files: Mapping[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


def tgz(files: Mapping[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """As npm packs."""
    return gzip.compress(tar_bytes(files, extra), mtime=0)


def deb(files: Mapping[str, bytes], extra: tuple[tarfile.TarInfo, ...] = (), data: bytes | None = None) -> bytes:
    """A Debian package: ar of three members, an odd-sized one included."""
    inner = data if data is not None else lzma.compress(tar_bytes(files, extra))
    out = b"!<arch>\n"
    for name, member in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", inner)):
        out += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode()
            + member
            + b"\n" * (len(member) % 2)
        )
    return out


def wheel(files: Mapping[str, bytes]) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class FakeClients:
    """Serves what it is given: `serve` returns the pinned package whose archive the fake clients will bring."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.store, self.log = root, root / "store", root / "log"
        self.bin = root / "bin"
        for folder in (self.store, self.bin, root / "python" / "pip"):
            folder.mkdir(parents=True)
        copy = f'for f in {self.store}/*; do [ -e "$f" ] && cp "$f" .; done'
        self.write("npm", copy)
        self.write("apt-get", copy)
        (root / "python" / "pip" / "__init__.py").write_text("")
        (root / "python" / "pip" / "__main__.py").write_text(
            f"import shutil, sys, pathlib\nstore, log = {str(self.store)!r}, {str(self.log)!r}\n"
            "open(log, 'a').write('pip ' + ' '.join(sys.argv[1:]) + '\\n')\n"
            "for f in pathlib.Path(store).iterdir(): shutil.copy(f, sys.argv[sys.argv.index('--dest') + 1])\n"
        )
        patch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        patch.setenv("PYTHONPATH", str(root / "python"))
        patch.setenv("DIPTYCH_CACHE", str(root / "cache"))

    def write(self, program: str, body: str) -> None:
        """Make a client of a shell script."""
        path = self.bin / program
        path.write_text(CLIENT.format(log=self.log, body=body))
        path.chmod(0o755)

    def serve(self, client: Client, filename: str, data: bytes) -> Package:
        """The package, pinned to `data`."""
        (self.store / filename).write_bytes(data)
        name = filename.split("-")[0].split("_")[0]
        return Package(
            client=client, name=name, version="1.0", filename=filename, sha256=hashlib.sha256(data).hexdigest()
        )

    @property
    def calls(self) -> list[str]:
        """The command lines so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClients:
    """Fake clients and an empty cache."""
    assert sys.executable
    return FakeClients(tmp_path, monkeypatch)
