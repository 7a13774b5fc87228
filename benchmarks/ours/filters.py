"""Our side of `filter_rates`: a filter over the shards of a pool, in this process."""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.candidates import CandidatePool
from diptych.data.filters.filter import filter_config


class Side:
    """The pool at `path`, its split train."""

    def __init__(self, path: str) -> None:
        self.pool = CandidatePool(path)
        self.about = {"records": len(self.pool)}

    def run(self, name: str, settings: dict[str, Any], repeats: int, alone: bool = False) -> dict[str, Any]:
        """The filter called `name` over all shards, `repeats` times, the reading of their columns included: seconds of
        the clock and of the processor for one time, and the numbers of the records that go. `alone`: the columns lie
        in memory before the clock starts (of filters that gather nothing)."""
        config, dropped = filter_config(name, **settings), list[int]()
        if alone:
            return self._alone(config.build(), repeats)
        started, used = time.perf_counter(), _cpu()
        for _ in range(repeats):
            dropped = self._once(config)
        return {
            "seconds": (time.perf_counter() - started) / repeats,
            "cpu": (_cpu() - used) / repeats,
            "dropped": dropped,
        }

    def _alone(self, made: Any, repeats: int) -> dict[str, Any]:
        every = [(rows, np.ones(len(rows), dtype=bool)) for rows in map(self.pool.rows, self.pool.shards)]
        for rows, _ in every:
            _ = rows.captions  # read and kept
        started, used = time.perf_counter(), _cpu()
        for _ in range(repeats):
            reasons = [reason for rows, alive in every for reason in made.reasons(rows, alive)]
        took = {"seconds": (time.perf_counter() - started) / repeats, "cpu": (_cpu() - used) / repeats}
        return {**took, "dropped": [i for i, reason in enumerate(reasons) if reason]}

    def _once(self, config: Any) -> list[int]:
        made, shards = config.build(), self.pool.shards
        every = [np.ones(self.pool.records_of(s), dtype=bool) for s in shards]
        reasons: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            if made.gathers:
                found = (made.gather(self.pool.rows(s), alive) for s, alive in zip(shards, every, strict=True))
                made.settle(found, self.pool, Path(folder))
            for shard, alive in zip(shards, every, strict=True):
                reasons += made.reasons(self.pool.rows(shard), alive)
        return [i for i, reason in enumerate(reasons) if reason]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
