"""Retrieval over tables on disk, once, in a process of its own, so that its peak of memory is its own. Started by
`retrieval_memory`.

Prints a line of JSON: the peak of resident memory (VmHWM, the interpreter and the pages of the tables included), the
seconds by the clock and of the processors, and the share of the images that was done. Ranks go into a file beside.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

PEER_BATCH = 64
"""The peer's batch: its one-hot of the K best is so many rows of K x N integers."""


class Enough(Exception):
    """The share that was asked for is done."""


def main() -> None:
    """Measure what the options say."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--side", choices=("diptych", "clip_benchmark"), required=True)
    options.add_argument("--folder", type=Path, required=True, help="where the tables are")
    options.add_argument("--share", type=float, default=1.0, help="stop after so much of the images (ours only)")
    args = options.parse_args()
    Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out all the same, then it is this that goes
    tables = [np.load(args.folder / f"{name}.npy", mmap_mode="r") for name in ("images", "texts")]
    found = (_ours if args.side == "diptych" else _theirs)(*tables, args)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    print(json.dumps({"peak_mb": peak, **found}))


def _ours(images: np.ndarray, texts: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """What `diptych eval --task retrieval` does once everything is embedded, with one caption an image."""
    from diptych.evals.ranking import Matches, Ranks
    from diptych.evals.retrieval_metrics import metrics_of
    from diptych.evals.vector_ranks import vector_ranks

    n, lock, done = len(images), threading.Lock(), 0
    hashes = [i.to_bytes(16, "little") for i in range(n)]
    captions = [(f"a caption of about the usual length, number {i}",) for i in range(n)]
    matches = Matches.of(hashes, captions)

    def told(images: int) -> None:
        nonlocal done
        with lock:
            done += images
        if done < n:
            if done % (1 << 13) < images:
                print(f"    {done:,} images after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            if done >= args.share * n:
                raise Enough

    started, used = time.perf_counter(), time.process_time()
    try:
        found = vector_ranks(images, texts, matches, told=told)
        np.save(args.folder / "ranks.npy", np.stack([found.i2t.numpy(), found.t2i.numpy()]))
    except Enough:  # the metrics then are of other ranks, as many
        found = Ranks(*(torch.randint(1, n, (n,)).double() for _ in range(2)), torch.zeros(n), torch.zeros(n))
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    started = time.perf_counter()
    metrics = metrics_of(found, matches, (1, 5, 10))
    return {
        "seconds": seconds,
        "processor": processor,
        "share": done / n,
        "metrics_seconds": time.perf_counter() - started,
        "metrics": {k: v.value for k, v in metrics.items()} if done == n else {},
    }


def _theirs(images: np.ndarray, texts: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """clip_benchmark's recall at 1, 5 and 10 both ways, from the same vectors: its own lines after the embedding."""
    import tests.torchvision_on_cpu  # noqa: F401
    from clip_benchmark.metrics import zeroshot_retrieval as peer

    started, used = time.perf_counter(), time.process_time()
    image, text = (torch.from_numpy(np.array(x)) for x in (images, texts))
    scores = text @ image.t()
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.arange(len(scores))] = True
    metrics = {}
    for k in (1, 5, 10):
        for way, (s, p) in {"t2i": (scores, positive), "i2t": (scores.T, positive.T)}.items():
            recall = peer.batchify(peer.recall_at_k, s, p, PEER_BATCH, "cpu", k=k)
            metrics[f"{way}_recall_at_{k}"] = (recall > 0).float().mean().item()
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - used,
        "share": 1.0,
        "metrics": metrics,
    }


if __name__ == "__main__":
    main()
