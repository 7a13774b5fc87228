"""A run folder as the training room writes it, with made-up numbers and drawn pictures: for the report's tests."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw


def thumb(colour: tuple[int, int, int]) -> str:
    """A drawn picture as base64 JPEG."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((10, 10, 54, 54), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def estimate(value: float, chance: float | None = None, half: float = 0.02, n: int = 1850) -> dict[str, Any]:
    """An Estimate in its JSON form."""
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "chance": chance,
        "n": n,
        "higher_is_better": True,
    }


def write(folder: Path) -> Path:
    """Write the run and return its folder."""
    (folder / "evals").mkdir(parents=True)
    config = {"kind": "x", "recipe": "clip:tiny", "train": {"lr": 1e-3, "global_batch": 256}, "data": {"path": "emoji"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "recipe.json").write_text(json.dumps({**config, "train": {"lr": 5e-4, "global_batch": 256}}))
    (folder / "env.json").write_text(json.dumps({"packages": {"torch": "2.13"}, "cpus": 2}))
    data = {"path": "emoji", "splits": {"train": 5500, "test": 1850}, "rejected": {"too_many_pixels": 3}}
    (folder / "data.json").write_text(json.dumps(data))
    lines = []
    for i in range(120):
        share = i / 119
        lines.append(
            {
                "samples_seen": 1000 * (i + 1),
                "epoch": i / 5,
                "loss": 5.5 * math.exp(-2 * share) + 0.1 * math.sin(i),
                "chance_loss": math.log(256),
                "lr": 1e-3 * math.cos(share * math.pi / 2),
                "grad_norm": 1 + share,
                "logit_scale": 14 + 30 * share,
                "positive_cosine": 0.2 + 0.5 * share,
                "negative_cosine": 0.1,
                "samples_per_s": 700 + 20 * math.sin(i),
                "data_wait": 0.04,
                "duplicate_captions": 0.1,
                "memory_mb": 900 + i,
            }
        )
        if i % 20 == 19:
            lines.append({"kind": "val", "samples_seen": 1000 * (i + 1), "val_loss": 4 * math.exp(-share)})
            where = {"kind": "eval", "samples_seen": 1000 * (i + 1), "task": "retrieval", "split": "val"}
            lines.append({**where, "t2i_recall_at_1": 0.4 * share})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"torn')
    finding = {
        "code": "starved",
        "severity": "warning",
        "message": "The device starves & waits.",
        "advice": "Pack with --resize.",
        "samples_seen": 5000,
    }
    (folder / "doctor.jsonl").write_text(json.dumps(finding) + "\n")
    colours = [(200, 30, 30), (30, 160, 60), (40, 70, 200), (230, 180, 20), (150, 60, 170)]
    hits = [
        {"thumb": thumb(c), "score": 0.6 - 0.1 * i, "caption": f"thing {i}", "correct": i == 1}
        for i, c in enumerate(colours)
    ]
    row = {"query": "a <red> fruit", "rank": 2, "target": {"thumb": thumb(colours[1])}, "hits": hits}
    text_row = {"query": {"thumb": thumb(colours[0]), "caption": "red apple"}, "rank": 1, "hits": hits}
    matrix = [[math.exp(-abs(i - j)) for j in range(32)] for i in range(32)]
    retrieval = {
        "task": "retrieval",
        "data": "emoji",
        "split": "test",
        "settings": {"captions": "first"},
        "metrics": {
            "t2i_recall_at_1": estimate(0.41, 0.0005),
            "t2i_recall_at_5": estimate(0.66, 0.0027),
            "i2t_recall_at_1": estimate(0.39, 0.0005),
            "t2i_median_rank": estimate(2, 925, 0.5),
        },
        "artifacts": {
            "similarity": {"matrix": matrix, "captions": [f"thing {i}" for i in range(32)]},
            "t2i_best": [row] * 2,
            "t2i_worst": [row] * 2,
            "i2t_best": [text_row] * 2,
            "i2t_worst": [text_row] * 2,
            "rank_histogram": {"t2i": {"bins": [1, 2, 5, 10, 100], "counts": [700, 300, 200, 100, 50]}},
        },
    }
    (folder / "evals" / "retrieval-test.json").write_text(json.dumps(retrieval))
    classes = ["zero", "one", "two"]
    zero_shot = {
        "task": "zero_shot",
        "data": "digits",
        "split": "test",
        "settings": {"templates": "clip"},
        "metrics": {"acc_at_1": estimate(0.31, 1 / 3, 0.04)},
        "artifacts": {
            "confusion": {"classes": classes, "matrix": [[50, 10, 5], [8, 60, 9], [20, 4, 40]]},
            "per_class": [
                {"name": c, "recall": 0.5, "low": 0.4, "high": 0.6, "n": 65, "chance": 1 / 3} for c in classes
            ],
            "prompts": [{"name": "ensemble of 80", "value": 0.31, "low": 0.27, "high": 0.35, "chance": 1 / 3}],
            "ensemble_against": {
                "single_prompt": {
                    "difference": 0.031,
                    "low": 0.011,
                    "high": 0.05,
                    "p_value": 0.002,
                    "verdict": "better",
                },
                "bare_name": {
                    "difference": -0.002,
                    "low": -0.01,
                    "high": 0.006,
                    "p_value": 0.7,
                    "verdict": "indistinguishable",
                },
            },
            "calibration": [
                {"n": 20, "confidence": 0.37, "accuracy": 0.3},
                {"n": 120, "confidence": 0.62, "accuracy": 0.55},
                {"n": 66, "confidence": 0.93, "accuracy": 0.7},
            ],
            "mistakes": [
                {"uid": "0", "thumb": thumb(c), "class": "one", "predicted": "two", "confidence": 0.97 - 0.1 * i}
                for i, c in enumerate(colours)
            ],
        },
    }
    (folder / "evals" / "zero_shot-test.json").write_text(json.dumps(zero_shot))
    return folder
