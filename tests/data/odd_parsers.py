"""Parsers for `ParserProcess`: one that does as it is told, of which the tests ask all that can go wrong."""

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from diptych.data.parser_process import Answers

PAGE = np.full((4, 6, 3), 90, dtype=np.uint8)


def obey(about: dict[str, Any], data: bytes) -> Answers:
    """Answers with the length of `data` and 2 x 3 pixels as often as `about` says, then does what it says."""
    for n in range(about.get("answers", 1)):
        yield {"n": n, "bytes": len(data), "pid": os.getpid()}, np.full((2, 3), n, dtype=np.uint8)
    what = about.get("then", "")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(3)
    elif what == "sleep":
        time.sleep(600)
    elif what == "spin":
        while True:
            pass
    elif what == "eat":
        yield {"eaten": len(np.ones(1 << 33, dtype=np.uint8))}, None
    elif what == "raise":
        raise KeyError("a page")
    elif what == "print":
        print("this is not for you", flush=True)
    elif what == "write":
        with open(about["path"], "wb") as file:
            file.write(b"x" * 100_000)
    elif what == "lie":
        os.write(int(about["into"]), b"\xff" * 16)
        time.sleep(600)
    elif what == "size":
        yield {"size": sys.getsizeof(b"")}, np.zeros((about["bytes"],), dtype=np.uint8)


def fragile_pdf(about: dict[str, Any], data: bytes) -> Answers:
    """Five pages; those that `data` names bring the process down, "0" the whole file, "x" is damaged."""
    bad = data.partition(b"bad:")[2].split()
    if b"0" in bad:
        os.kill(os.getpid(), signal.SIGSEGV)
    yield {"pages": 5}, None
    for page in range(about["first"], 6):
        if b"%d" % page in bad:
            os.kill(os.getpid(), signal.SIGABRT)
        if b"x" in bad:
            yield {"page": page, "text": "no pixels"}, None
        yield {"page": page, "text": f"page {page}"}, PAGE
        yield {"done": page}, None


def fragile_video(about: dict[str, Any], data: bytes) -> Answers:
    """A frame at each time, until one after 2 s brings the process down, or after 4 s is none."""
    for time_s in about["times"]:
        if time_s > 4:
            yield {"time": "now"}, PAGE
        if time_s > 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        yield {"time": time_s}, PAGE
