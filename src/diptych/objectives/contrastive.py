"""Symmetric InfoNCE over the global batch, in float32, that knows which pairs are duplicates of each other.

Across ranks. Rank r returns the mean over its own images and its own texts, L_r; the loss of the global batch is
L = (1/W) sum_r L_r. The gradient that rank r hands to its embeddings is that of all ranks' losses, sum_r dL_r/dx =
W dL/dx; DDP then averages parameter gradients over ranks, (1/W) W dL/dx dx/dw = dL/dw. The logit scale gets parts whose
mean over ranks is dL/ds. Nothing needs to be rescaled. How it is computed, and that no rank ever holds a matrix of all
pairs: `objectives/tiled_softmax.py`.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, rank, world_size
from diptych.core.errors import ConfigError
from diptych.core.progress import say
from diptych.models.model import Model
from diptych.objectives.exchange import Exchange
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.same_pairs import SamePairs, duplicate_shares
from diptych.objectives.tiled_softmax import Duplicates, InfoNce
from diptych.objectives.tiles import Pairs, Wanted, best_texts, tile_size, with_gradient


class PairObjective(Objective):
    """What objectives over the matrix of all images and all texts share: how pairs are encoded, gathered and watched.

    Needs: `encode_image`, `encode_text` (unit vectors with gradient) and `log_logit_scale` of the model; images, tokens
    and lengths of the batch, and text_ids or image_ids unless duplicates are ignored.
    """

    couples_pairs = True
    takes_patches = True
    takes_cached = True
    duplicates: Duplicates
    exchange: Exchange

    def __init__(self, model: Model, duplicates: Duplicates, exchange: Exchange = "auto") -> None:
        missing = [n for n in ("encode_image", "encode_text", "log_logit_scale") if getattr(model, n, None) is None]
        if missing:
            raise ConfigError(
                f"{type(self).__name__} must be given a model with encode_image, encode_text and log_logit_scale; got "
                f"{type(model).__name__} without {', '.join(missing)}. Use models.two_tower."
            )
        super().__init__(model)
        self.duplicates = duplicates
        self.exchange = exchange

    def forward(self, batch: Batch) -> Losses:
        """The mean loss of this rank's pairs among all ranks' pairs."""
        return self.loss(self.encode(batch), batch)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors "image" and "text", (b, e) each; of a tower that was computed once, from its cached vectors."""
        model: Any = self.model
        cached = batch.cached or {}
        encoded: dict[str, Tensor] = {
            kind: model.encode_from(kind, cached[kind]) for kind in ("image", "text") if kind in cached
        }
        if "image" not in cached and batch.patches is not None:
            encoded["image"] = model.encode_image(batch.patches, batch.patch_index, batch.patch_grid)
        elif "image" not in cached and batch.images is not None:
            encoded["image"] = model.encode_image(batch.images)
        if "text" not in cached and batch.tokens is not None and batch.lengths is not None:
            encoded["text"] = model.encode_text(batch.tokens, batch.lengths)
        if len(encoded) < 2:
            raise ConfigError(
                f"{type(self).__name__} must be given batches of images and texts; got one without. Use paired data."
            )
        return encoded

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The loss from unit vectors "image" and "text"; float32 whatever the autocast around it."""
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text = encoded["image"].float(), encoded["text"].float()
            same = None if self.duplicates == "ignore" else self.same_pairs(batch)
            return self.loss_of_embeds(image, text, same)

    @abstractmethod
    def loss_of_embeds(self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: SamePairs | None) -> Losses:
        """The loss of this rank's rows. `same`: which pairs share a caption or an image; None: it does not matter."""

    @abstractmethod
    def chance(self, pairs: int, same: SamePairs | None) -> dict[str, float | Tensor]:
        """ "chance_loss", the loss of a model that guesses as well as one can, and "chance_terms" if it is ln of it."""

    def pairs(
        self,
        image: Float[Tensor, "b e"],
        text: Float[Tensor, "b e"],
        same: SamePairs | None,
        bias: Tensor | None = None,
    ) -> Pairs:
        """The matrix of all images and all texts, as what it is computed from."""
        b, size = len(image), tile_size(image.device)
        scale = self.logit_scale().detach()
        bias = None if bias is None else bias.detach()
        image, text = image.detach(), text.detach()
        return Pairs(image, text, scale, bias, same, rank() * b, world_size() * b, size, self.exchange)

    def same_pairs(self, batch: Batch) -> SamePairs:
        """Which pairs of the global batch share their caption or their image. A collective."""
        return SamePairs.of_ranks(batch.text_ids, batch.image_ids, duplicates=self.duplicates)

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """Chance-level loss, logit scale, mean cosines of true and false pairs, recall inside the batch, duplicates.

        A collective: under DDP every rank must call it.
        """
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text = encoded["image"].detach().float(), encoded["text"].detach().float()
            g = len(image) * world_size()
            sums = torch.stack([image.sum(0), text.sum(0)])  # (2, e)
            positive = torch.linalg.vecdot(image, text).sum()
            hits = best_texts(self.pairs(image, text, None)).sum()
            sums, positive, hits = all_sum(sums), all_sum(positive), all_sum(hits)
        # the mean over all g^2 pairs is the product of the means, so the false ones need no matrix
        negative = (sums[0] @ sums[1] - positive) / max(g * g - g, 1)
        numbers: dict[str, Any] = {
            "logit_scale": self.logit_scale(),
            "positive_cosine": positive / g,
            "negative_cosine": negative,
            "batch_i2t_recall_at_1": hits / g,
        }
        same = None
        if batch is not None:
            numbers |= duplicate_shares(batch.text_ids, batch.image_ids)
            same = None if self.duplicates == "ignore" else self.same_pairs(batch)
        numbers |= self.chance(g, same)
        return {k: float(v) for k, v in numbers.items()}

    def logit_scale(self) -> Float[Tensor, ""]:
        """The factor on cosines, in float32 and differentiable."""
        log: Any = self.model.log_logit_scale
        return log.float().exp().reshape(())


class ContrastiveConfig(ObjectiveConfig):
    """InfoNCE. `label_smoothing` is the share of the target spread over all candidates (ALIGN uses 0.1); `exchange` is
    how texts come to other ranks ("gather", "ring", or "auto": by their size).
    """

    label_smoothing: float = 0.0
    duplicates: Duplicates = "mask"
    exchange: Exchange = "auto"

    def build(self, model: Model) -> "Contrastive":
        """The objective around `model`."""
        return Contrastive(self, model)


class Contrastive(PairObjective):
    """Each image must find its text among all texts of the global batch, and each text its image.

    Radford et al. 2021 (arXiv:2103.00020, fig. 3); label smoothing as in ALIGN (arXiv:2102.05918).
    Relation: without duplicates and smoothing, equal to the mean of two cross-entropies over scaled cosines.
    """

    def __init__(self, config: ContrastiveConfig, model: Model) -> None:
        if not 0 <= config.label_smoothing < 1:
            raise ConfigError(
                f"objective.label_smoothing must be at least 0 and below 1; got {config.label_smoothing}. Try 0.1."
            )
        super().__init__(model, config.duplicates, config.exchange)
        self.label_smoothing = config.label_smoothing
        bias = getattr(model, "logit_bias", None)
        if isinstance(bias, torch.nn.Parameter) and bias.requires_grad:
            bias.requires_grad_(False)  # it cannot get a gradient, and DDP would wait for it for ever
            say("contrastive: the model's logit_bias is kept but not trained; a softmax does not change with it.")

    def loss_of_embeds(self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: SamePairs | None) -> Losses:
        """The mean of both directions over this rank's rows; parts "i2t" and "t2i"."""
        scale = self.logit_scale()
        found = InfoNce(self.pairs(image, text, same), self.duplicates, self.label_smoothing).compute(
            Wanted.of(image, text, scale)
        )
        gradients = [(image, found.image), (text, found.text), (scale, found.scale)]
        total = with_gradient((found.i2t + found.t2i) / 2, gradients)
        count = torch.full((), float(len(image)), device=image.device)  # does not wait for the device
        return Losses(total, count, {"i2t": found.i2t, "t2i": found.t2i})

    def chance(self, pairs: int, same: SamePairs | None) -> dict[str, float | Tensor]:
        """ln of the number of candidates, which masked duplicates make fewer (geometric mean over rows)."""
        if same is None or self.duplicates != "mask":
            return {"chance_loss": math.log(pairs), "chance_terms": float(pairs)}
        candidates = pairs + 1 - same.counts()  # one of those that are the same is the pair itself
        mean = candidates.log().mean()
        return {"chance_loss": mean, "chance_terms": mean.exp()}
