"""One side of `scaling` in one of several processes that torchrun started. Rank 0 writes what it measured to --out."""

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    """Train a few steps on gloo (nccl on CUDA), all ranks alike."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--side", choices=("diptych", "open_clip"), required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--folder", required=True, help="where the peer writes its model, and ours reads it")
    options.add_argument("--batch", type=int, required=True, help="pairs of each process")
    options.add_argument("--steps", type=int, required=True)
    options.add_argument("--warmup", type=int, default=1)
    options.add_argument("--device", default="cpu")
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args()
    rank, answer = (_ours if args.side == "diptych" else _theirs)(args)
    if rank == 0:
        args.out.write_text(json.dumps(answer))


def _ours(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    from benchmarks.ours.step import Side
    from diptych.core import distributed

    distributed.init_from_environment()
    try:
        side = Side(args.folder, args.batch, args.device, count=2)
        side.run(args.warmup)
        return distributed.rank(), side.run(args.steps)
    finally:
        distributed.shutdown()


def _theirs(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    import torch

    from benchmarks.peer.step import Side

    side = Side(args.model, args.batch, args.device, count=2)
    if side.trainer.args.rank == 0 and not Path(args.folder, "open_clip_config.json").exists():
        side.export(args.folder)
    side.run(args.warmup)
    answer = side.run(args.steps)
    if side.trainer.args.distributed:
        torch.distributed.destroy_process_group()
    return int(side.trainer.args.rank), answer


if __name__ == "__main__":
    main()
