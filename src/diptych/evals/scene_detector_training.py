"""The detector of scenes, learned once from a split of which all is known, and kept by all that it rests on."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor

from diptych.core.config import Config, to_dict
from diptych.core.errors import EvalError
from diptych.core.files import cache_dir, write_atomic
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.core.seeds import fold, numpy_generator, permute
from diptych.data.decode import probe
from diptych.data.image_reader import ImageReader
from diptych.evals import scene_detector
from diptych.evals.eval import Estimate
from diptych.evals.scene_detector import SceneDetector, detection_loss
from diptych.evals.scene_facts import is_scene
from diptych.evals.statistics import proportion

KEPT: dict[str, "Trained"] = {}
"""Detectors of this process by their key: a suite asks for the same one again and again."""


class DetectorConfig(Config):
    """How the detector learns. The defaults take about a minute on two cores.

    max_train   learn from at most so many scenes, drawn at random; a tenth of them is held out
    samples     pictures that it sees in all
    """

    max_train: int = Field(default=8000, ge=20)
    samples: int = Field(default=50_000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    seed: int = 0


class Trained(NamedTuple):
    """A detector and what it was found to read: of held-out scenes the share that it reads without a mistake (every
    object with its shape and colour, how many of each, and none that is not there). `scenes`: that it learned from."""

    detector: Any
    accuracy: Estimate
    scenes: int


class Scenes(NamedTuple):
    """Pictures with what is known of them, and the side in whose pixels their boxes are."""

    images: UInt8[Tensor, "n 3 s s"]
    metas: list[dict[str, Any]]
    sides: list[int]


def detector_for(
    source: Any, split: str, side: int, config: DetectorConfig, device: str | torch.device = "cpu"
) -> Trained:
    """The detector of pictures of `side` pixels that has learned from a split of the opened data `source`."""
    key = detector_key(str(source.fingerprint), split, side, config)
    if key not in KEPT:
        KEPT[key] = _from_disk_or_trained(key, source.split(split), side, config, torch.device(device))
    return KEPT[key]


def detector_key(fingerprint: str, split: str, side: int, config: DetectorConfig) -> str:
    """A hash of all that a detector rests on: the data, its settings and the code."""
    code = [inspect.getsource(m) for m in (scene_detector, inspect.getmodule(detector_key)) if m is not None]
    whole = [fingerprint, split, side, to_dict(config), *code]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def read_scenes(split: Any, side: int, most: int, seed: int = 0) -> Scenes:
    """At most `most` scenes of a split, always the same ones. Raises EvalError where there are fewer than 20."""
    size = len(split)
    places = sorted(permute(i, size, seed, "detector") for i in range(min(most, size)))
    metas = {p: m for p in places if is_scene(m := split.meta(p))}
    reader = ImageReader(split, ImageFormat(resolution=side, resize="squash"), 256)
    kept, images = list[int](), [torch.empty(0, 3, side, side, dtype=torch.uint8)]
    for batch in reader.batches(list(metas)):
        kept += batch.places
        images.append(batch.images)
    if len(kept) < 20:
        raise EvalError(
            f"a detector must learn from at least 20 scenes; got {len(kept)} in {split.name}. Take the corpus scenes "
            "(diptych corpus get scenes), whose records say what was drawn."
        )
    return Scenes(torch.cat(images), [metas[p] for p in kept], [probe(split.image_bytes(p)).width for p in kept])


def train_detector(scenes: Scenes, config: DetectorConfig, device: str | torch.device = "cpu") -> SceneDetector:
    """A detector that has learned from `scenes`, some of them blurred, some noisy, as painted pictures may be."""
    words = sorted({str(o["word"]) for m in scenes.metas for o in m["objects"] if o["shape"] == "word"})
    steps = -(-config.samples // config.batch_size)
    draws = numpy_generator(config.seed, "detector", "order")
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(fold(config.seed, "detector"))
        detector = SceneDetector(words).to(device).train()
        optimizer = torch.optim.AdamW(detector.parameters(), config.lr, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, steps + 1, pct_start=0.1)
        order: list[int] = []
        for _ in range(steps):
            if len(order) < config.batch_size:
                order += draws.permutation(len(scenes.metas)).tolist()
            part, order = order[: config.batch_size], order[config.batch_size :]
            truth = detector.truth([scenes.metas[i] for i in part], [scenes.sides[i] for i in part])
            truth = truth._replace(
                scene=truth.scene.to(device),
                centre=truth.centre.to(device),
                said={k: v.to(device) for k, v in truth.said.items()},
                background=truth.background.to(device),
            )
            loss = detection_loss(detector(spoiled(scenes.images[part].to(device))), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return detector.eval()


def spoiled(images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    """Each as it is, blurred, noisy, or a little brighter or darker: drawn from torch's global generator."""
    x = images.float()
    b = len(x)
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    weight = torch.rand(b, 1, 1, 1, device=x.device) * (torch.rand(b, 1, 1, 1, device=x.device) < 0.5)
    x = x + weight * (blurred - x)
    x = x * (1 + 0.1 * (2 * torch.rand(b, 3, 1, 1, device=x.device) - 1))
    noise = 20 * torch.rand(b, 1, 1, 1, device=x.device) * (torch.rand(b, 1, 1, 1, device=x.device) < 0.5)
    return (x + noise * torch.randn_like(x)).clamp(0, 255)


def read_right(detector: Any, scenes: Scenes) -> list[bool]:
    """Of each scene whether the detector finds what is there: shapes, colours and numbers, and words as words."""
    return [
        _things(seen) == _things(meta) for seen, meta in zip(detector.read(scenes.images), scenes.metas, strict=True)
    ]


def _things(meta: dict[str, Any]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for thing in meta["objects"]:
        key = str(thing["shape"]), str(thing["colour"])
        found[key] = found.get(key, 0) + len(thing["boxes"])
    return found


def _from_disk_or_trained(key: str, split: Any, side: int, config: DetectorConfig, device: torch.device) -> Trained:
    path = cache_dir("detectors") / f"{key}.safetensors"
    scenes = read_scenes(split, side, config.max_train, config.seed)
    held = np.array([permute(i, len(scenes.metas), "held") < len(scenes.metas) // 10 for i in range(len(scenes.metas))])
    learn, judge = (_some(scenes, np.flatnonzero(mask).tolist()) for mask in (~held, held))
    if path.is_file():
        words = sorted({str(o["word"]) for m in learn.metas for o in m["objects"] if o["shape"] == "word"})
        detector = SceneDetector(words).to(device)
        detector.load_state_dict(load_file(path))
    else:
        say(f"a detector of scenes learns from {len(learn.metas):,} pictures of {side} pixels (once).")
        detector = train_detector(learn, config, device)
        write_atomic(path, save({k: v.contiguous().cpu() for k, v in detector.state_dict().items()}))
    right = read_right(detector, judge)
    return Trained(detector.eval(), proportion(sum(right), len(right)), len(learn.metas))


def _some(scenes: Scenes, which: Sequence[int]) -> Scenes:
    return Scenes(scenes.images[list(which)], [scenes.metas[i] for i in which], [scenes.sides[i] for i in which])
