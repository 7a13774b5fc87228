"""A packed dataset of a few tiny pictures and a run over it that takes a second."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.core.record import Record, Segment
from diptych.data.loader import LoaderConfig
from diptych.data.shards import ShardWriter
from diptych.data.tokenize import Tokenizer
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.train.config import RunConfig, TrainConfig
from tests.objectives.tiny_model import TinyConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("square", "stripe", "dot", "frame", "cross")


def tiny_dataset(folder: Path, copies: int = 2, val: int = 1, questions: bool = False) -> Path:
    """20 x `copies` records of train and 20 x `val` of val: a coloured shape on grey, and its name.

    With `questions`, two questions about it and their answers in the place of the name.
    """
    rng = np.random.default_rng(0)
    splits = {}
    captions = []
    for name, times in (("train", copies), ("val", val)):
        with ShardWriter(folder / name, records_per_shard=16) as writer:
            for t in range(times):
                for colour, rgb in COLOURS.items():
                    for shape in SHAPES:
                        record = _record(f"{name}-{t}-{colour}-{shape}", colour, rgb, shape, rng)
                        captions += record.segments[1].texts
                        if questions:
                            record = _asked(record, colour, shape)
                            captions += ["what colour is it?", "what shape is it?"]
                        writer.add(record, [(8, 8)])
            shards = list(writer.shards)
        counts = [min(16, 20 * times - 16 * i) for i in range(len(shards))]
        described = [{"name": s, "records": c} for s, c in zip(shards, counts, strict=True)]
        splits[name] = {"records": 20 * times, "shards": described}
    seen = sum(split["records"] for split in splits.values())
    info = {"format": 1, "splits": splits, "fingerprint": f"{copies}{val}", "seen": seen, "kept": seen}
    (folder / "dataset.json").write_text(json.dumps(info | {"captions": {"texts": len(captions)}}))
    Tokenizer.train(captions, vocab_size=280, context_length=8).save(folder)
    return folder


def _record(key: str, colour: str, rgb: tuple[int, int, int], shape: str, rng: np.random.Generator) -> Record:
    pixels = np.full((8, 8, 3), 128, np.uint8) + rng.integers(0, 20, (8, 8, 3), dtype=np.uint8)
    where = {
        "square": np.s_[2:6, 2:6],
        "stripe": np.s_[:, 3:5],
        "dot": np.s_[3:5, 3:5],
        "frame": np.s_[0:8:7, :],
        "cross": np.s_[2:6:3, 1:7:5],
    }[shape]
    pixels[where] = rgb
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return Record.pair(key, buffer.getvalue(), "png", (f"a {colour} {shape}", f"{shape} in {colour}"))


def _asked(record: Record, colour: str, shape: str) -> Record:
    """The record with questions whose answers only its image tells."""
    asked = Segment("text", ("what colour is it?", "what shape is it?"), "txt", role="question", loss=False)
    return Record(record.key, (record.segments[0], asked, Segment("text", (colour, shape), "txt", role="answer")))


def tiny_config(data: Path, **train: object) -> RunConfig:
    """A contrastive run of 8 steps of 16 pairs, with dropout on, unless told otherwise."""
    settings = {"samples_seen": 128, "global_batch": 16, "lr": 1e-3, "warmup_samples": 32, "val_batches": 1}
    return RunConfig(
        recipe="tiny",
        data=LoaderConfig(path=str(data), workers=0),
        model=TinyConfig(dropout=0.1),
        objective=ContrastiveConfig(),
        train=TrainConfig(**(settings | train)),
    )
