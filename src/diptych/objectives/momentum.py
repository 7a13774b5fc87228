"""Contrast and matching with a teacher that is an average of the model, and a queue of vectors that it gave before.

ALBEF (Li et al., 2021, arXiv:2107.07651, sections 3.2 and 3.3) and BLIP (arXiv:2201.12086); the queue is MoCo's (He et
al., 2020, arXiv:1911.05722). An image's own vector looks for its text among the teacher's vectors of all texts of the
batch and of the queue; what it should find is a mixture of its own text and of what the teacher finds likely.

Here the candidates are those of all ranks (in the authors' code each rank has its own batch and the queue), so that two
ranks compute what one does; and pairs that share a caption or an image are no negatives of each other, in the queue
neither, where a small corpus comes again and again. The queue's free places are no candidates (the authors fill them
with noise).
"""

import copy
import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.distributed import gather, gather_with_grad, rank, world_size
from diptych.core.errors import ConfigError, DataError
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.objectives.matching import CHANCE, chosen_rows, chosen_texts, hard_negatives, matching_loss
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.same_pairs import SamePairs, duplicate_shares


class MomentumConfig(ObjectiveConfig):
    """Base of the settings of ALBEF and BLIP.

    contrast, matching  weights of these two losses
    label_smoothing     of the contrastive targets, over all candidates
    momentum            of the teacher: teacher <- momentum teacher + (1 - momentum) model after each step; 0: none
    queue               vectors of earlier batches that are kept as candidates; 0: none
    alpha               share of the targets that the teacher decides
    alpha_samples       over so many samples that share grows from 0; 0: it is there at once. ALBEF has an epoch, BLIP
                        two
    duplicates          whether pairs that share a caption or an image are left out of each other's negatives ("mask")
    """

    abstract: ClassVar[bool] = True
    contrast: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    matching: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    momentum: float = Field(default=0.995, ge=0, lt=1)
    queue: int = Field(default=0, ge=0)
    alpha: float = Field(default=0.4, ge=0, le=1)
    alpha_samples: int = Field(default=0, ge=0)
    duplicates: Literal["mask", "ignore"] = "mask"


class EMATeacher(nn.Module):
    """An exponential moving average of a model, which never trains: its `model` starts as a copy.

    Statistics of batch norms are averaged alike, and it always normalises by them.
    """

    def __init__(self, model: Model, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EMATeacher":
        """It stays as it is: at rest."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Move a step towards the model as it is now."""
        mine, now = self.model.state_dict(), model.state_dict()
        names = [n for n, t in mine.items() if t.is_floating_point()]
        away = [_local(now[n]) for n in names]
        torch._foreach_lerp_([_local(mine[n]) for n in names], away, 1 - self.momentum)
        for n in mine.keys() - set(names):
            mine[n].copy_(now[n])


class EmbeddingQueue(nn.Module):
    """The last `size` pairs of vectors (e wide) with the ids of captions and images, the oldest overwritten first.

    All is in buffers, so that a run goes on with it; nothing is read back from a device. Every rank holds all.
    """

    alike_on_ranks: ClassVar[bool] = True
    """Every rank puts in the vectors of all."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        for name in ("image", "text"):
            self.register_buffer(name, torch.zeros(size, width))
            self.register_buffer(f"{name}_ids", torch.zeros(size, dtype=torch.int64))
        for name in ("pointer", "filled"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    image: Tensor
    text: Tensor
    image_ids: Tensor
    text_ids: Tensor
    pointer: Tensor
    filled: Tensor

    @property
    def there(self) -> Bool[Tensor, " n"]:
        """Which places hold a vector."""
        return torch.arange(self.size, device=self.filled.device) < self.filled

    @torch.no_grad()
    def put(self, rows: dict[str, Tensor]) -> None:
        """Take in "image" and "text" vectors (b e), "image_ids" and "text_ids" (b), of all ranks alike.

        Of a step that a device has skipped, vectors may be no numbers: what was there before stays.
        """
        rows = {n: t[-self.size :] for n, t in rows.items()}
        count = len(rows["image"])
        places = (self.pointer + torch.arange(count, device=self.pointer.device)) % self.size
        sound = (rows["image"].isfinite() & rows["text"].isfinite()).all(1)
        for name, new in rows.items():
            kept: Tensor = getattr(self, name)
            good = sound[:, None] if new.ndim == 2 else sound
            kept[places] = torch.where(good, new.to(kept.dtype), kept[places])
        self.pointer.copy_((self.pointer + count) % self.size)
        self.filled.copy_((self.filled + count).clamp(max=self.size))


class MomentumObjective(Objective):
    """Contrast, matching, and a third loss, whose weight is the setting that a subclass names (`third_name`).

    Needs: `features_of`, `unit_image`, `unit_text`, `matching_logits` and `log_logit_scale` of the model
    (models/fusion.py); images, tokens and lengths of the batch, and text_ids or image_ids unless duplicates are
    ignored.
    """

    couples_pairs = True
    takes_cached: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    """What is asked of the model besides."""
    third_name: ClassVar[str]
    judges: ClassVar[tuple[str, str]] = ("tokens", "matching_logits")
    """What of texts `encode` hands out for matching, and the model's method that judges it beside images."""
    config: MomentumConfig

    def __init__(self, config: MomentumConfig, model: Model) -> None:
        name = type(self).__name__
        needs = ("features_of", "unit_image", "unit_text", "matching_logits", "log_logit_scale", *self.needs)
        missing = [n for n in needs if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"{name} must be given a model that compares, judges and foresees; got {type(model).__name__} without "
                f"{', '.join(missing)}. Use models.{name.lower()}."
            )
        super().__init__(model)
        self.config = config
        known: Any = model.config
        self.average = EMATeacher(model, config.momentum) if config.momentum else None
        self.queue = EmbeddingQueue(config.queue, known.embed_dim) if config.queue else None
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self._new: dict[str, Tensor] = {}

    seen: Tensor
    """Samples behind us, by which the teacher's share grows."""

    @abstractmethod
    def third(self, encoded: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(the weighted third loss, its parts for the log), means over all ranks' tokens as this rank's part of a mean
        over ranks."""

    def forward(self, batch: Batch) -> Losses:
        """The mean loss of this rank's pairs among all ranks' pairs."""
        return self.loss(self.encode(batch), batch)

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(image tokens, tokens, lengths) of a batch of pairs."""
        model: Any = self.model
        if batch.tokens is None or batch.lengths is None:
            raise DataError(
                f"{type(self).__name__} must be given batches of images and texts; got one without. Use pairs."
            )
        features = model.features_of(batch)
        if features is None or len(features) != len(batch.tokens):
            raise DataError(
                f"{type(self).__name__} must be given one image a text; got {0 if features is None else len(features)} "
                f"images for {len(batch.tokens)} texts. Use pairs."
            )
        return features, batch.tokens, batch.lengths

    def widened(self, rows: Tensor) -> Tensor:
        """Rows of a text's tokens (b t ...), equally wide in all pieces and on all ranks."""
        short = self.model.config.context_length - rows.shape[1]
        return F.pad(rows, (0, 0) * (rows.ndim - 2) + (0, short))

    @torch.no_grad()
    def keys_of(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's unit vectors of a batch, "image_key" and "text_key" (b e), and its "image_tokens"; empty where
        there is no teacher."""
        if self.average is None:
            return {}
        teacher: Any = self.average.model
        features = teacher.features_of(batch)
        text = teacher.unit_text(batch.tokens, batch.lengths)
        return {"image_key": teacher.unit_image(features), "text_key": text, "image_tokens": features}

    def shared_rows(self, batch: Batch, features: Tensor) -> dict[str, Tensor]:
        """What both objectives encode: "image" (b p c), what texts attend to, "lengths", and "draw" (b 2), the numbers
        in 0..1 by which negatives are drawn."""
        assert batch.lengths is not None
        return {
            "features": features,
            "lengths": batch.lengths.to(features.device, non_blocking=True),
            "draw": uniform(self.keys(batch), "negatives", 2),
        }

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The weighted sum of the three losses from what `encode` returned; similarities in float32 in any case."""
        c, b = self.config, len(encoded["text"])
        same = self._same(batch, b)
        contrast, i2t, t2i = self._contrast(encoded, batch, same)
        matching, matched = self._matching(encoded, i2t, t2i, None if same is None else same[:, : i2t.shape[1]])
        third, parts = self.third(encoded)
        total = c.contrast * contrast + c.matching * matching + third
        parts = {"contrast": contrast, "matching": matching, "matched": matched} | parts
        count = torch.full((), float(b), device=total.device)
        return Losses(total.float(), count, {k: v.detach() for k, v in parts.items()})

    def after_step(self) -> None:
        """The model's temperature is held, the teacher moves, and the step's vectors enter the queue."""
        super().after_step()
        if self.average is not None:
            self.average.update(self.model)
        if self._new:
            self.seen += len(self._new["image"])
            if self.queue is not None:
                self.queue.put(self._new)
            self._new = {}

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """The loss of a model that knows nothing, logit scale, mean cosines of true and false pairs of this rank,
        recall inside the rank's share, duplicates, how full the queue is and what the teacher decides. A collective."""
        with torch.autocast(encoded["text"].device.type, enabled=False):
            cosines = encoded["image"].detach().float() @ encoded["text"].detach().float().T
        c, b, g = self.config, len(cosines), len(cosines) * world_size()
        own, waiting = cosines.diagonal(), 0 if self.queue is None else int(self.queue.filled)
        numbers: dict[str, Any] = {
            "logit_scale": self.scale(),
            "positive_cosine": own.mean(),
            "negative_cosine": (cosines.sum() - own.sum()) / max(b * b - b, 1),
            "batch_i2t_recall_at_1": (cosines.argmax(1) == torch.arange(b, device=own.device)).float().mean(),
            "queue": waiting,
            "teacher_share": self.teacher_share(),
        }
        if batch is not None:
            numbers |= duplicate_shares(batch.text_ids, batch.image_ids)
        weight: float = getattr(c, self.third_name)
        chance = c.contrast * math.log(g + waiting) + c.matching * CHANCE + weight * math.log(self.model.vocab_size)
        return {k: float(v) for k, v in numbers.items()} | {"chance_loss": chance}

    def teacher_share(self) -> Float[Tensor, ""]:
        """The share of targets that the teacher decides now."""
        c = self.config
        full = self.seen.new_full((), c.alpha if self.average is not None else 0.0, dtype=torch.float32)
        return full * (self.seen.float() / c.alpha_samples).clamp(max=1) if c.alpha_samples else full

    def scale(self) -> Float[Tensor, ""]:
        """The factor on cosines, in float32 and differentiable."""
        log: Any = self.model.log_logit_scale
        return log.float().exp().reshape(())

    def _contrast(
        self, encoded: dict[str, Tensor], batch: Batch, same: Bool[Tensor, "b g"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(the loss, this rank's logits of its images with all ranks' texts, and of its texts with all images)."""
        with torch.autocast(encoded["text"].device.type, enabled=False):
            image, text = encoded["image"].float(), encoded["text"].float()
            if self.average is None:
                images, texts = gather_with_grad(image), gather_with_grad(text)
            else:
                images, texts = (gather(encoded[f"{n}_key"].detach().float()) for n in ("image", "text"))
            self._note(images, texts, batch)
            g = len(texts)
            if self.queue is not None:
                images, texts = torch.cat([images, self.queue.image]), torch.cat([texts, self.queue.text])
            scale, barred = self.scale(), self._barred(same, len(image), len(texts))
            i2t, t2i = scale * image @ texts.T, scale * text @ images.T
            loss = image.new_zeros(())
            for logits, key, others in ((i2t, "image_key", texts), (t2i, "text_key", images)):
                soft = None
                if self.average is not None:
                    soft = (scale * encoded[key].detach().float() @ others.T).detach()
                loss = loss + self._find(logits, soft, barred) / 2
        return loss, i2t[:, :g].detach(), t2i[:, :g].detach()

    def _find(self, logits: Tensor, teacher: Tensor | None, barred: Tensor | None) -> Tensor:
        """The mean over rows of the cross-entropy of what is to be found, among all that is not barred."""
        b = len(logits)
        own = torch.arange(rank() * b, rank() * b + b, device=logits.device)
        e, share = self.config.label_smoothing, self.teacher_share()
        if barred is not None:
            logits = logits.masked_fill(barred, float("-inf"))
        log_p = logits.log_softmax(1)
        log_p = log_p if barred is None else log_p.masked_fill(barred, 0)
        found = (1 - share) * log_p.gather(1, own[:, None])[:, 0]
        if teacher is not None:
            teacher = teacher if barred is None else teacher.masked_fill(barred, float("-inf"))
            found = found + share * (teacher.softmax(1) * log_p).sum(1)
        if e:
            free = logits.shape[1] if barred is None else (~barred).sum(1)
            found = (1 - e) * found + e * log_p.sum(1) / free
        return -found.mean()

    def _barred(self, same: Bool[Tensor, "b n"] | None, rows: int, columns: int) -> Bool[Tensor, "b n"] | None:
        """What is no candidate of each row: what is the same, and free places of the queue."""
        if self.queue is None:
            return same
        free = torch.cat([torch.zeros(columns - self.queue.size, device=self.seen.device).bool(), ~self.queue.there])
        return free.expand(rows, -1) if same is None else same | free

    def _matching(
        self, encoded: dict[str, Tensor], i2t: Tensor, t2i: Tensor, same: Bool[Tensor, "b g"] | None
    ) -> tuple[Tensor, Tensor]:
        """(the loss, the share that is right) over each pair, each text with a wrong image, each image with a wrong
        text."""
        model: Any = self.model
        judged = hard_negatives(i2t, t2i, same, encoded["draw"].detach())
        rows, judge = self.judges
        features = chosen_rows(encoded["features"], judged.image, model)
        texts = chosen_texts(encoded[rows], encoded["lengths"], judged.text, model)
        return matching_loss(getattr(model, judge)(features, *texts), judged)

    def _note(self, images: Tensor, texts: Tensor, batch: Batch) -> None:
        """Keep the step's vectors until it is taken. Not while a model is judged: then nothing is learnt from."""
        if not (self.training and torch.is_grad_enabled()):
            return
        self._new = {"image": images.detach(), "text": texts.detach()}
        for name in ("image_ids", "text_ids"):
            ids = getattr(batch, name)
            missing = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            self._new[name] = missing if ids is None else gather(ids)

    def _same(self, batch: Batch, rows: int) -> Bool[Tensor, "b n"] | None:
        """Which other pairs, of the batch and in the queue, share a caption or an image with each of this rank's. A
        collective."""
        if self.config.duplicates == "ignore":
            return None
        kept = None if self.queue is None else (self.queue.text_ids, self.queue.image_ids)
        return SamePairs.of_ranks(batch.text_ids, batch.image_ids, kept).others(rows)


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor as it is."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()
