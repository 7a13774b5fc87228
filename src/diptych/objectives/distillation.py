"""Contrastive learning that also follows a teacher, whose vectors were computed once and are read from a table.

The student's distribution over all texts, given an image, is drawn towards the teacher's, and likewise over all images,
given a text: cross-entropy between softmaxes of scaled cosines, as in open_clip's DistillClipLoss (Ilharco et al. 2021)
and, as affinity mimicking, in TinyCLIP (Wu et al. 2023, arXiv:2309.12314, eq. 1 and 2). Duplicates need no rule here:
the teacher gives them equal shares by itself.

Across ranks as in `objectives/contrastive.py`: each rank has the rows of its own pairs against the columns of all.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from diptych.checkpoints.native import EMA, WEIGHTS, find_model
from diptych.core.batch import Batch
from diptych.core.distributed import gather, gather_with_grad
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.contrastive import Contrastive, ContrastiveConfig
from diptych.objectives.objective import Losses
from diptych.objectives.same_pairs import SamePairs
from diptych.objectives.tiles import Wanted, with_gradient

TILE = 1 << 22
"""Entries of the matrix of all pairs that are formed at a time."""
TEACHER_IMAGE, TEACHER_TEXT = "teacher_image", "teacher_text"


class DistillationConfig(ContrastiveConfig):
    """The settings of the contrastive loss, and:

    teacher         a model folder with two towers; its own image format and tokenizer are used, unaugmented
    weight          factor of the teacher's loss beside the contrastive one
    teacher_scale   factor on the teacher's cosines (1 / temperature); None: the one that it was trained with
    """

    teacher: str = ""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    teacher_scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def build(self, model: Model) -> "Distillation":
        """The objective around `model`."""
        return Distillation(self, model)


class Distillation(Contrastive):
    """InfoNCE plus `weight` times the cross-entropy of the student's softmaxes under the teacher's.

    Needs what Contrastive needs, and the teacher's vectors as `Batch.cached` "teacher_image" and "teacher_text".
    """

    def __init__(self, config: DistillationConfig, model: Model) -> None:
        super().__init__(config, model)
        if not config.teacher and config.teacher_scale is None:
            raise ConfigError(
                "objective.teacher must be a model folder (a run, a converted checkpoint); got nothing. "
                "Add objective.teacher=DIR."
            )
        self.config = config
        self.teacher = config.teacher
        self.weight = config.weight

    @cached_property
    def teacher_scale(self) -> float:
        """The factor on the teacher's cosines."""
        given = self.config.teacher_scale
        return given if given is not None else scale_of(Path(self.teacher))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors "image" and "text", (b, e) each, and the teacher's, "teacher_image" and "teacher_text"."""
        cached = batch.cached or {}
        if TEACHER_IMAGE not in cached or TEACHER_TEXT not in cached:
            raise ConfigError(
                "Distillation must be given batches with cached teacher_image and teacher_text; got one without. "
                "Train it with diptych pretrain, which computes them once."
            )
        theirs = {name: F.normalize(cached[name].float(), dim=-1) for name in (TEACHER_IMAGE, TEACHER_TEXT)}
        return super().encode(batch) | theirs

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The contrastive loss from "image" and "text", and the teacher's; float32 whatever the autocast around it."""
        own = super().loss(encoded, batch)
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text = encoded["image"].float(), encoded["text"].float()
            their_image, their_text = encoded[TEACHER_IMAGE].detach().float(), encoded[TEACHER_TEXT].detach().float()
            scale = self.logit_scale()
            i2t = follow(image, gather_with_grad(text), scale, their_image, gather(their_text), self.teacher_scale)
            t2i = follow(text, gather_with_grad(image), scale, their_text, gather(their_image), self.teacher_scale)
        distill = (i2t + t2i) / 2
        return Losses(own.total + self.weight * distill, own.count, own.parts | {"distill": distill.detach()})

    def chance(self, pairs: int, same: SamePairs | None) -> dict[str, float | Tensor]:
        """Whatever the teacher says, a student that knows nothing pays ln of the number of pairs for it."""
        return {"chance_loss": super().chance(pairs, same)["chance_loss"] + self.weight * math.log(pairs)}


def follow(
    rows: Float[Tensor, "b e"],
    columns: Float[Tensor, "g e"],
    scale: Float[Tensor, ""],
    their_rows: Float[Tensor, "b d"],
    their_columns: Float[Tensor, "g d"],
    their_scale: float,
) -> Float[Tensor, ""]:
    """The mean over rows of the cross-entropy of softmax(scale rows columns^T) under the teacher's softmax.

    Differentiable by `rows`, `columns` and `scale`. Value and gradient are computed together, some rows at a time: no
    more than TILE entries of the matrix exist, three times over.
    """
    wanted = Wanted.of(rows, columns, scale)
    with torch.no_grad():
        found = _Sums(*(torch.zeros_like(x) for x in (scale, rows, columns, scale)))
        step = max(1, TILE // len(columns))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            target = (their_scale * their_rows[part] @ their_columns.T).softmax(1)
            logits = rows[part] @ columns.T
            logits *= scale
            log_sum = logits.logsumexp(1)
            found.value.add_(log_sum.sum() - torch.linalg.vecdot(target, logits).sum())
            if not wanted.any:
                continue
            error = (logits - log_sum[:, None]).exp_().sub_(target)  # of softmax and target: the gradient by the logits
            found.scale.add_(torch.linalg.vecdot(error, logits).sum() / scale)
            error *= scale
            found.rows[part] = error @ columns
            if wanted.text:
                found.columns.addmm_(error.T, rows[part])
        for tensor in found:
            tensor /= len(rows)
    inputs = ((rows, found.rows), (columns, found.columns), (scale, found.scale))
    return with_gradient(found.value, [(x, g if x.requires_grad else None) for x, g in inputs])


class _Sums(NamedTuple):
    value: Tensor
    rows: Tensor
    columns: Tensor
    scale: Tensor


def scale_of(folder: Path) -> float:
    """The factor on cosines of the model in `folder`. Raises ConfigError where it has none."""
    path = find_model(folder)
    with safe_open(path / (EMA if (path / EMA).is_file() else WEIGHTS), "pt") as file:
        opened: Any = file
        names = set(opened.keys())
        if "log_logit_scale" in names:
            return float(opened.get_tensor("log_logit_scale").float().exp())
        if "temperature" in names:  # ALIGN's kind
            return 1 / float(opened.get_tensor("temperature").float())
        raise ConfigError(
            f"objective.teacher must be a model with two towers and a temperature; got {folder}, which has no "
            "log_logit_scale. Set objective.teacher_scale."
        )
