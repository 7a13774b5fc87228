"""A process that holds one side of a comparison and computes only when it is asked: ``python -m benchmarks.worker``.

Started as ``python -m benchmarks.worker MODULE``; MODULE has a class `Side`. Each line of stdin is a request
``{"do": name, "with": {...}}``: "open" makes the Side, anything else calls its method. Each answer is a line of JSON.
Whatever the libraries print goes to stderr, so that it cannot be taken for an answer. Imports nothing but Python's own
library before it is asked to, for the peer's interpreter has no Diptych.
"""

import ctypes
import importlib
import json
import os
import platform
import signal
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PR_SET_PDEATHSIG = 1
PACKAGES = ("diptych", "open_clip_torch", "torch", "torchvision", "timm", "webdataset", "numpy", "pillow", "simplejpeg")


def versions() -> dict[str, str]:
    """Versions of Python and of those `PACKAGES` that this interpreter has."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def answer(module: str, side: Any, request: dict[str, Any]) -> tuple[Any, Any]:
    """(the side, its answer) to one request."""
    do, given = request["do"], request.get("with", {})
    if do == "versions":
        return side, versions()
    if do == "open":
        side = importlib.import_module(module).Side(**given)
        return side, getattr(side, "about", {})
    return side, getattr(side, do)(**given)


def die_with_parent() -> None:
    """Have Linux kill this process when the driver dies: one that stands still would not notice by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answer requests until stdin ends."""
    die_with_parent()
    module = sys.argv[1]
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    side: Any = None
    for line in sys.stdin:
        try:
            side, result = answer(module, side, json.loads(line))
            reply = {"ok": result}
        except Exception as error:  # whatever it is, the driver must hear of it
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        channel.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
