"""The peers of the data engine (img2dataset, cleanvision, data-juicer): their interpreter, and sides in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.turns import ROOT, SideError, Worker

DATA_PYTHON = ROOT / ".venv-data" / "bin" / "python"
PACKAGES = ("img2dataset", "cleanvision", "py-data-juicer", "opencv-python-headless", "numpy", "pillow", "pyarrow")


def data_python() -> str:
    """Their interpreter: $BENCH_DATA_PYTHON, else that of `make bench-data`. Raises SideError where there is none."""
    python = os.environ.get("BENCH_DATA_PYTHON") or str(DATA_PYTHON)
    if not Path(python).exists():
        raise SideError(
            f"the peers need an interpreter; got {python}, which is not there. Run `make bench-data` first."
        )
    return python


def peer_versions() -> dict[str, dict[str, str]]:
    """Versions of Python and of PACKAGES there, under the name "peers"."""
    ask = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version(), **{{p: version(p) for p in {PACKAGES!r}}}}}))"
    )
    said = subprocess.run([data_python(), "-c", ask], capture_output=True, check=True, cwd=ROOT).stdout
    return {"peers": json.loads(said)}


def side(whose: str, name: str, threads: int = 1) -> Worker:
    """A worker around ``benchmarks.<whose>.filters``: "ours", or "peer" in the peers' interpreter."""
    python = data_python() if whose == "peer" else sys.executable
    env = {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return Worker(name, python, f"benchmarks.{whose}.filters", threads, env)
