"""CLIPScore and RefCLIPScore: what another model, which embeds images and words, thinks of captions.

Hessel et al., "CLIPScore: a reference-free evaluation metric for image captioning", arXiv:2104.08718, section 3:

    CLIPScore    = 2.5 * max(cos(caption, image), 0)
    RefCLIPScore = the harmonic mean of CLIPScore and max(0, the highest cosine of caption and reference)

Every text begins with "A photo depicts ". torchmetrics' convention is another: 100 * max(cos, 0), the caption as it is.
Values compare only where the scorer and the convention are the same; a model never scores its own captions.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diptych.checkpoints.open_model import open_model
from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate
from diptych.evals.scoring import read_gallery
from diptych.evals.statistics import mean_estimate
from diptych.evals.written import Written
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained

Convention = Literal["hessel", "torchmetrics"]
PREFIX = {"hessel": "A photo depicts ", "torchmetrics": ""}
SCALE = {"hessel": 2.5, "torchmetrics": 100.0}


class Judgement(NamedTuple):
    """By image CLIPScore and RefCLIPScore, and what chance reaches in each: captions dealt out to wrong images."""

    clip_score: Float64[np.ndarray, " n"]
    ref_clip_score: Float64[np.ndarray, " n"]
    chance: dict[str, float]


def open_scorer(words: str, model: Pretrained) -> Pretrained:
    """The model that judges: a run's folder, openclip:PATH or hf:PATH. Raises EvalError where it is `model` itself."""
    scorer = open_model(words, model.device)
    if scorer.fingerprint == model.fingerprint:
        raise EvalError(
            f"scorer must be another model than the one under test; got {words}, which is the same "
            f"({model.fingerprint}). Name one that did not learn with it, such as a CLIP."
        )
    require(scorer.model, ("embed_image", "embed_text"), "the scorer of captions")
    return scorer


def judge_captions(
    scorer: Pretrained,
    split: Any,
    written: Written,
    deals: Sequence[Int64[np.ndarray, " n"]],
    convention: Convention,
    batch_size: int = 64,
) -> Judgement:
    """What `scorer` thinks of the captions that were written of images of `split`."""
    reader = ImageReader(split, scorer.model.config.image_format, batch_size)
    images = read_gallery(scorer, reader, written.places, "CLIPScore", True).vectors
    assert images is not None
    prefix = PREFIX[convention]
    captions = scorer.embed_text([prefix + c for c in written.captions])
    references = scorer.embed_text([prefix + t for texts in written.references for t in texts])
    owners = np.repeat(np.arange(len(written.places)), [len(texts) for texts in written.references])
    every = np.arange(len(written.places))
    scores = [_scores(images, captions[order], references, owners, convention) for order in (every, *deals)]
    chance = {
        "clip_score": float(np.mean([s[0].mean() for s in scores[1:]])),
        "ref_clip_score": float(np.mean([s[1].mean() for s in scores[1:]])),
    }
    return Judgement(*scores[0], chance)


def judgement_estimates(
    judged: Judgement, clusters: Int64[np.ndarray, " n"], convention: Convention, samples: int, seed: int
) -> dict[str, Estimate]:
    """Both scores with intervals over images and chance levels."""
    scale, found = SCALE[convention], {}
    for name, values in (("clip_score", judged.clip_score), ("ref_clip_score", judged.ref_clip_score)):
        e = mean_estimate(values / scale, clusters, judged.chance[name] / scale, samples, seed)
        found[name] = e.replace(
            value=float(values.mean()), low=e.low * scale, high=e.high * scale, chance=judged.chance[name]
        )
    return found


def _scores(
    images: Float[Tensor, "n e"],
    captions: Float[Tensor, "n e"],
    references: Float[Tensor, "r e"],
    owners: Int64[np.ndarray, " r"],
    convention: Convention,
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """CLIPScore and RefCLIPScore of each image's caption; on torchmetrics' scale the second is a mean of cosines, times
    100 (it has none of its own)."""
    seen = np.maximum((images * captions).sum(1).double().numpy(), 0)
    told = np.zeros(len(seen))
    np.maximum.at(told, owners, (references * captions[owners.tolist()]).sum(1).double().numpy())
    if convention == "hessel":
        seen = SCALE["hessel"] * seen
    both = seen + told
    harmonic = np.divide(2 * seen * told, both, out=np.zeros_like(both), where=both > 0)
    return (seen, harmonic) if convention == "hessel" else (100.0 * seen, 100.0 * harmonic)
