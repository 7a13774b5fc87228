"""The processes of a test of several: forked from one that has imported what they need and done nothing yet.

Each would import torch and Diptych anew otherwise, which takes longer than most of what they are asked.
"""

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

from torch.multiprocessing import start_processes

PRELOADED = ["diptych.data.judge_pool", "diptych.train.loop", "diptych.train.stages", "diptych.recipes"]


def in_processes(work: Callable[..., None], args: tuple[Any, ...], count: int) -> None:
    """``work(rank, *args)`` in `count` processes at once; raises what one of them raises."""
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
    start_processes(work, args, nprocs=count, start_method="forkserver" if sys.platform == "linux" else "spawn")
