"""What teaches a Q-Former to ask: contrast, matching and generation at once (BLIP-2, arXiv:2301.12597, section 3.1).

The three parts couple pairs differently. Generation does not couple them: it is done when a pair is encoded. Contrast
needs every pair's unit vectors. Matching reads texts beside other pairs' images, chosen by the similarities: its pass
through the Q-Former is part of the loss, over image tokens and token ids that `encode` hands out. So cached pieces
(`train/accumulate.py`) give exactly the gradient of the whole batch; what they do not make smaller is that pass over
3 b pairs (checkpointed blocks do).

Across ranks as in `objectives/contrastive.py`: each rank has the rows of its own pairs among the columns of all, and
gradients go back to whose columns they are.
"""

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import gather_with_grad, rank, world_size
from diptych.core.errors import ConfigError, DataError
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.objectives.matching import CHANCE, chosen_rows, chosen_texts, hard_negatives, matching_loss
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.same_pairs import SamePairs, duplicate_shares
from diptych.objectives.token_loss import writing_loss, written_rows

TILE = 1 << 22
"""Cosines of queries and texts that are formed at a time."""


class QueryAlignmentConfig(ObjectiveConfig):
    """Settings of the three losses, whose weighted sum is minimised; the paper's weights are 1.

    label_smoothing    of the contrastive targets, over all candidates
    writing_smoothing  of the tokens to be foreseen, over the vocabulary
    duplicates         whether pairs that share a caption or an image are left out of each other's negatives ("mask")
    """

    contrast: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    matching: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    writing: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    writing_smoothing: float = Field(default=0.1, ge=0, lt=1)
    duplicates: Literal["mask", "ignore"] = "mask"

    def build(self, model: Model) -> "QueryAlignment":
        """The objective around `model`."""
        return QueryAlignment(self, model)


class QueryAlignment(Objective):
    """Contrast (the largest cosine over the queries, both ways), matching (each pair, each text beside another's image
    and each image beside another's text, drawn by similarity), and generation of the text.

    Needs: `align`, `matching_logits`, `next_tokens`, `head` and `log_logit_scale` of the model (models/blip2.py);
    images, tokens and lengths of the batch, and text_ids or image_ids unless duplicates are ignored.
    Parts: "contrast", "matching", "nll" (nats a token, without smoothing); the shares that are right of pairs judged,
    "matched", and of tokens, "foreseen".
    """

    couples_pairs = True
    takes_cached: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def __init__(self, config: QueryAlignmentConfig, model: Model) -> None:
        needs = ("align", "matching_logits", "next_tokens", "head", "log_logit_scale")
        missing = [n for n in needs if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"QueryAlignment must be given a model with a Q-Former that reads texts; got {type(model).__name__} "
                f"without {', '.join(missing)}. Use models.blip2."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        """The mean loss of this rank's pairs among all ranks' pairs."""
        return self.loss(self.encode(batch), batch)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """A row a pair each of: "queries" (b m e) and "text" (b e), unit vectors; "image" (b p c), what queries attend
        to, "tokens" (b context) and "lengths", for matching; "draw" (b 2), the numbers in 0..1 by which negatives are
        drawn; what `token_loss.written_rows` has of writing the text."""
        model: Any = self.model
        if batch.tokens is None or batch.lengths is None:
            raise DataError("QueryAlignment must be given batches of images and texts; got one without. Use pairs.")
        features = model.features_of(batch)
        if features is None or len(features) != len(batch.tokens):
            raise DataError(
                f"QueryAlignment must be given one image a text; got {0 if features is None else len(features)} images "
                f"for {len(batch.tokens)} texts. Use pairs."
            )
        aligned = model.align(features, batch.tokens, batch.lengths)
        said = model.next_tokens(aligned.written, batch)
        short = model.config.context_length - batch.tokens.shape[1]
        return {
            "queries": aligned.queries,
            "text": aligned.text,
            "image": features,
            "tokens": F.pad(batch.tokens, (0, short)),  # equally wide in all pieces and on all ranks
            "lengths": batch.lengths.to(features.device, non_blocking=True),
            "draw": uniform(self.keys(batch), "negatives", 2),
            **written_rows(said, model.head(), len(features), self.config.writing_smoothing),
        }

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The weighted sum of the three losses from what `encode` returned; similarities in float32 in any case."""
        c, b = self.config, len(encoded["text"])
        ignored = c.duplicates == "ignore"
        same = None if ignored else SamePairs.of_ranks(batch.text_ids, batch.image_ids).others(b)
        with torch.autocast(encoded["text"].device.type, enabled=False):
            queries, text = encoded["queries"].float(), encoded["text"].float()
            scale = self._scale()
            i2t = scale * best_query(queries, gather_with_grad(text))
            t2i = i2t.T if world_size() == 1 else scale * best_query(gather_with_grad(queries), text).T
            contrast = (
                find(i2t, rank() * b, same, c.label_smoothing) + find(t2i, rank() * b, same, c.label_smoothing)
            ) / 2
        matching, matched = self._matching(encoded, i2t.detach(), t2i.detach(), same)
        writing, said = writing_loss(encoded)
        total = c.contrast * contrast + c.matching * matching + c.writing * writing
        parts = {"contrast": contrast, "matching": matching, "matched": matched, **said}
        count = torch.full((), float(b), device=total.device)
        return Losses(total.float(), count, {k: v.detach() for k, v in parts.items()})

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """The loss of a model that knows nothing, logit scale, mean cosines of true and false pairs of this rank,
        recall inside the rank's share, duplicates. A collective."""
        with torch.autocast(encoded["text"].device.type, enabled=False):
            cosines = best_query(encoded["queries"].detach().float(), encoded["text"].detach().float())
        c, b, g = self.config, len(cosines), len(cosines) * world_size()
        own = cosines.diagonal()
        numbers: dict[str, Any] = {
            "logit_scale": self._scale(),
            "positive_cosine": own.mean(),
            "negative_cosine": (cosines.sum() - own.sum()) / max(b * b - b, 1),
            "batch_i2t_recall_at_1": (cosines.argmax(1) == torch.arange(b, device=own.device)).float().mean(),
        }
        if batch is not None:
            numbers |= duplicate_shares(batch.text_ids, batch.image_ids)
        chance = c.contrast * math.log(g) + c.matching * CHANCE + c.writing * math.log(self.model.vocab_size)
        return {k: float(v) for k, v in numbers.items()} | {"chance_loss": chance}

    def _matching(
        self, encoded: dict[str, Tensor], i2t: Tensor, t2i: Tensor, same: Bool[Tensor, "b g"] | None
    ) -> tuple[Tensor, Tensor]:
        """(the loss, the share that is right) over each pair, each text with a wrong image, each image with a wrong
        text. A pair without any wrong one counts once."""
        model: Any = self.model
        judged = hard_negatives(i2t, t2i, same, encoded["draw"].detach())
        features = chosen_rows(encoded["image"], judged.image, model)
        texts = chosen_texts(encoded["tokens"], encoded["lengths"], judged.text, model)
        return matching_loss(model.matching_logits(features, *texts), judged)

    def _scale(self) -> Float[Tensor, ""]:
        log: Any = self.model.log_logit_scale
        return log.float().exp().reshape(())


def best_query(queries: Float[Tensor, "i m e"], text: Float[Tensor, "b e"]) -> Float[Tensor, "i b"]:
    """The largest cosine over each image's queries with each text. Differentiable; no more than TILE cosines of single
    queries exist at once."""
    step = max(1, TILE // max(1, queries.shape[1] * len(text)))
    found = [torch.einsum("ime,be->ibm", part, text).max(-1).values for part in queries.split(step)]
    return torch.cat(found)


def find(
    logits: Float[Tensor, "b g"], first: int, same: Bool[Tensor, "b g"] | None, label_smoothing: float
) -> Float[Tensor, ""]:
    """The mean over rows of the cross-entropy of finding one's partner, row i's being `first` + i, among all but those
    that are the `same`."""
    own = torch.arange(first, first + len(logits), device=logits.device)
    if same is None:
        return F.cross_entropy(logits, own, label_smoothing=label_smoothing)
    log_p = logits.masked_fill(same, float("-inf")).log_softmax(1)
    even = log_p.masked_fill(same, 0).sum(1) / (~same).sum(1)
    partner = log_p.gather(1, own[:, None])[:, 0]
    return -((1 - label_smoothing) * partner + label_smoothing * even).mean()
