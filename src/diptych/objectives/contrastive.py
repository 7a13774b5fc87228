"""Symmetric InfoNCE over the global batch, in float32, that knows which pairs are duplicates of each other.

Across ranks. Rank r scores its own b images against all g = W b texts, and its own b texts against all images, and
returns the mean over its own rows, L_r. The loss of the global batch is L = (1/W) sum_r L_r. Embeddings travel through
`gather_with_grad`, whose gradient is summed over ranks, so an embedding gets sum_r dL_r/dx = W dL/dx; DDP then averages
parameter gradients over ranks, (1/W) W dL/dx dx/dw = dL/dw. The logit scale gets (1/W) sum_r dL_r/ds = dL/ds. Nothing
needs to be rescaled, and no rank ever forms more than two (b, g) blocks.
"""

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, gather, gather_with_grad, rank, world_size
from diptych.core.errors import ConfigError
from diptych.core.progress import say
from diptych.models.model import Model
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig

Duplicates = Literal["mask", "positives", "ignore"]
"""What to do with two pairs of a batch that share their caption or their image: "mask" takes them out of each other's
negatives, "positives" makes them each other's positives, "ignore" keeps them as negatives."""


class PairObjective(Objective):
    """What objectives over the matrix of all images and all texts share: how pairs are encoded, gathered and watched.

    Needs: `encode_image`, `encode_text` (unit vectors with gradient) and `log_logit_scale` of the model; images, tokens
    and lengths of the batch, and text_ids or image_ids unless duplicates are ignored.
    """

    couples_pairs = True
    duplicates: Duplicates

    def __init__(self, model: Model, duplicates: Duplicates) -> None:
        missing = [n for n in ("encode_image", "encode_text", "log_logit_scale") if getattr(model, n, None) is None]
        if missing:
            raise ConfigError(
                f"{type(self).__name__} must be given a model with encode_image, encode_text and log_logit_scale; got "
                f"{type(model).__name__} without {', '.join(missing)}. Use models.two_tower."
            )
        super().__init__(model)
        self.duplicates = duplicates

    def forward(self, batch: Batch) -> Losses:
        """The mean loss of this rank's pairs among all ranks' pairs."""
        return self.loss(self.encode(batch), batch)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors "image" and "text", (b, e) each."""
        if batch.images is None or batch.tokens is None or batch.lengths is None:
            raise ConfigError(
                f"{type(self).__name__} must be given batches of images and texts; got one without. Use paired data."
            )
        model: Any = self.model
        return {"image": model.encode_image(batch.images), "text": model.encode_text(batch.tokens, batch.lengths)}

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The loss from unit vectors "image" and "text"; float32 whatever the autocast around it."""
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text = encoded["image"].float(), encoded["text"].float()
            same = None if self.duplicates == "ignore" else self.same_pairs(batch)
            return self.loss_of_embeds(image, text, same)

    @abstractmethod
    def loss_of_embeds(
        self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: Bool[Tensor, "b g"] | None
    ) -> Losses:
        """The loss of this rank's rows. `same[i, j]`: pairs i and j share a caption or an image (true for i itself)."""

    @abstractmethod
    def chance(self, pairs: int, same: Bool[Tensor, "b g"] | None) -> dict[str, float | Tensor]:
        """ "chance_loss", the loss of a model that guesses as well as one can, and "chance_terms" if it is ln of it."""

    def same_pairs(self, batch: Batch) -> Bool[Tensor, "b g"]:
        """Which of this rank's b pairs share their caption or their image with which of all g pairs."""
        found = [equal_ids(ids) for ids in (batch.text_ids, batch.image_ids) if ids is not None]
        if not found:
            raise ConfigError(
                f"objective.duplicates must be 'ignore' for batches without text_ids and image_ids; got "
                f"{self.duplicates!r}. Fill the ids (the loader does), or ignore duplicates."
            )
        return found[0] if len(found) == 1 else found[0] | found[1]

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """Chance-level loss, logit scale, mean cosines of true and false pairs, recall inside the batch, duplicates.

        A collective: under DDP every rank must call it.
        """
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text = encoded["image"].detach().float(), encoded["text"].detach().float()
            b, g = len(image), len(image) * world_size()
            all_text = gather(text)
            sums = torch.stack([image.sum(0), text.sum(0)])  # (2, e)
            positive = (image * text).sum()
            best = (image @ all_text.T).argmax(1) == torch.arange(b, device=image.device) + rank() * b
            sums, positive, hits = all_sum(sums), all_sum(positive), all_sum(best.float().sum())
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
            for name, ids in (("duplicate_captions", batch.text_ids), ("duplicate_images", batch.image_ids)):
                if ids is not None:
                    numbers[name] = all_sum((equal_ids(ids).sum(1) > 1).float().sum()) / g
            same = None if self.duplicates == "ignore" else self.same_pairs(batch)
        numbers |= self.chance(g, same)
        return {k: float(v) for k, v in numbers.items()}

    def logit_scale(self) -> Float[Tensor, ""]:
        """The factor on cosines, in float32 and differentiable."""
        log: Any = self.model.log_logit_scale
        return log.float().exp().reshape(())


class ContrastiveConfig(ObjectiveConfig):
    """InfoNCE. `label_smoothing` is the share of the target spread over all candidates (ALIGN uses 0.1)."""

    label_smoothing: float = 0.0
    duplicates: Duplicates = "mask"

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
        super().__init__(model, config.duplicates)
        self.label_smoothing = config.label_smoothing
        bias = getattr(model, "logit_bias", None)
        if isinstance(bias, torch.nn.Parameter) and bias.requires_grad:
            bias.requires_grad_(False)  # it cannot get a gradient, and DDP would wait for it for ever
            say("contrastive: the model's logit_bias is kept but not trained; a softmax does not change with it.")

    def loss_of_embeds(
        self, image: Float[Tensor, "b e"], text: Float[Tensor, "b e"], same: Bool[Tensor, "b g"] | None
    ) -> Losses:
        """The mean of both directions over this rank's rows; parts "i2t" and "t2i"."""
        scale, offset = self.logit_scale(), rank() * len(image)
        if world_size() == 1:
            logits = scale * image @ text.T  # (b, b): one product serves both directions
            i2t, t2i = logits, logits.T
        else:
            everyone = gather_with_grad(torch.cat([image, text], 1))  # (g, 2 e): one collective for both
            all_image, all_text = everyone.chunk(2, 1)
            i2t, t2i = scale * image @ all_text.T, scale * text @ all_image.T  # (b, g) each
        rows_i2t = softmax_rows(i2t, offset, same, self.duplicates, self.label_smoothing).mean()
        rows_t2i = softmax_rows(t2i, offset, same, self.duplicates, self.label_smoothing).mean()
        count = torch.tensor(float(len(image)), device=image.device)
        parts = {"i2t": rows_i2t.detach(), "t2i": rows_t2i.detach()}
        return Losses((rows_i2t + rows_t2i) / 2, count, parts)

    def chance(self, pairs: int, same: Bool[Tensor, "b g"] | None) -> dict[str, float | Tensor]:
        """ln of the number of candidates, which masked duplicates make fewer (geometric mean over rows)."""
        if same is None or self.duplicates != "mask":
            return {"chance_loss": math.log(pairs), "chance_terms": float(pairs)}
        candidates = (pairs + 1 - same.sum(1)).float()  # one of those that are the same is the pair itself
        mean = all_sum(candidates.log().sum()) / pairs
        return {"chance_loss": mean, "chance_terms": mean.exp()}


def softmax_rows(
    logits: Float[Tensor, "b g"],
    offset: int,
    same: Bool[Tensor, "b g"] | None,
    duplicates: Duplicates,
    label_smoothing: float,
) -> Float[Tensor, " b"]:
    """Cross-entropy of each row, whose own column is `offset` further right than its number.

    `same` marks duplicates (each row's own column included): "mask" takes them from the candidates, "positives" spreads
    the target evenly over them. Smoothing spreads its share evenly over all candidates.
    """
    own = logits.diagonal(offset)[: len(logits)]
    if same is None or duplicates == "ignore":
        log_sum, target = logits.logsumexp(1), own
        mean = logits.mean(1) if label_smoothing else own
    elif duplicates == "mask":
        excluded = same.clone()
        excluded.diagonal(offset)[: len(logits)] = False
        # the row's own column always stays, so that the sum is never over nothing and no -inf reaches a product
        log_sum, target = logits.masked_fill(excluded, -math.inf).logsumexp(1), own
        mean = logits.masked_fill(excluded, 0).sum(1) / (~excluded).sum(1) if label_smoothing else own
    else:
        log_sum = logits.logsumexp(1)
        target = logits.masked_fill(~same, 0).sum(1) / same.sum(1)
        mean = logits.mean(1) if label_smoothing else own
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing * mean
    return log_sum - target


def equal_ids(ids: Int64[Tensor, " b"]) -> Bool[Tensor, "b g"]:
    """Which of this rank's b ids equal which of all ranks' g ids."""
    return ids[:, None] == gather(ids)[None, :]
