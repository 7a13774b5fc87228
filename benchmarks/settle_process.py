"""What `near_duplicates` does once all is gathered, alone, on made hashes: ``python -m benchmarks.settle_process``.

The pictures are blends of drawings made of blocks, so that their hashes are as uneven as those of pictures are; a tenth
are copies of others with a little noise. Prints a line of JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from diptych.data.filters.near_duplicates import Gathered, NearDuplicatesConfig
from diptych.data.hash_pairs import pack_hashes
from diptych.data.near_copies import SIDE, miniature, perceptual_hash

SHARD = 10_000
BASES = 4096
COPIED = 0.1


@dataclass(frozen=True)
class MadePool:
    """As much of a pool as settling asks for."""

    records: int

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards' names."""
        return tuple(f"{i}" for i in range(-(-self.records // SHARD)))

    def __len__(self) -> int:
        return self.records

    def records_of(self, shard: str) -> int:
        """How many records a shard has."""
        return min(SHARD, self.records - SHARD * int(shard))


def gathered(records: int, seed: int = 0) -> Iterator[Gathered]:
    """What `NearDuplicates.gather` would give, a shard after the other."""
    rng = torch.Generator().manual_seed(seed)
    bases = _drawings(BASES, rng)
    for start in range(0, records, SHARD):
        count = min(SHARD, records - start)
        hashes, miniatures = [], []
        for part in range(0, count, 1000):
            n = min(1000, count - part)
            a, b = torch.randint(BASES, (2, n), generator=rng)
            share = 0.2 + 0.6 * torch.rand(n, 1, 1, 1, generator=rng)
            blend = bases[a] * share + bases[b] * (1 - share)
            copies = int(n * COPIED)
            if copies:
                blend[-copies:] = blend[:copies] + 3 * torch.randn(copies, 3, SIDE, SIDE, generator=rng)
            images = blend.clamp(0, 255).round().to(torch.uint8)
            hashes.append(pack_hashes(perceptual_hash(images).numpy()))
            miniatures.append(miniature(images).numpy())
        none = np.zeros(0, np.int64)
        yield Gathered(np.arange(count), np.concatenate(hashes), np.concatenate(miniatures), none)


def _drawings(count: int, rng: torch.Generator) -> torch.Tensor:
    """Pictures (count, 3, 32, 32) of noise in octaves: low frequencies are strong, as in real ones."""
    found = torch.zeros(count, 3, SIDE, SIDE)
    for cells in (2, 4, 8, 16):
        noise = torch.rand(count, 3, cells, cells, generator=rng)
        found += F.interpolate(noise, (SIDE, SIDE), mode="bilinear") * (2.0 / cells)
    low, high = found.amin((1, 2, 3), keepdim=True), found.amax((1, 2, 3), keepdim=True)
    return (found - low) / (high - low) * 255


class _Timed:
    """What is gathered, its own making not counted."""

    def __init__(self, records: int) -> None:
        self.made, self.cpu = gathered(records), 0.0

    def __iter__(self) -> Iterator[Gathered]:
        while True:
            started = time.process_time()
            found = next(self.made, None)
            self.cpu += time.process_time() - started
            if found is None:
                return
            yield found


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--records", type=int, default=100_000)
    records = options.parse_args().records
    torch.set_num_threads(1)
    pool = MadePool(records)
    made, timed = NearDuplicatesConfig().build(), _Timed(records)
    started, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        made.settle(iter(timed), pool, Path(folder))  # type: ignore[arg-type]  # a pool for what is asked of it
        dropped = sum(int((np.load(Path(folder) / f"{s}.npy") == 1).sum()) for s in pool.shards)
    cpu = time.process_time() - used - timed.cpu
    wall = time.perf_counter() - started
    print(json.dumps({"records": records, "cpu_s": cpu, "wall_s_with_making": wall, "dropped": dropped}))


if __name__ == "__main__":
    main()
