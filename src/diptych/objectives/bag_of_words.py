"""Predicting the words of the caption without their order (Joulin et al., 2016, arXiv:1511.02251)."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig


class BagOfWordsConfig(ObjectiveConfig):
    """Settings of bag-of-words prediction. Whether words exclude each other is the model's to say (its `words`)."""

    def build(self, model: Model) -> "BagOfWords":
        """The objective around `model`."""
        return BagOfWords(self, model)


class BagOfWords(Objective):
    """The mean over pairs of the cross-entropy between the words predicted and those of the text, each weighing 1/K.

    With "softmax" -(1/K) sum of log p(word) over the K words (Joulin et al., eq. 2); with "sigmoid" the sum over the
    vocabulary of the binary cross-entropies, divided by K (their one-versus-all loss). A text without words bears none.

    Needs: `word_logits` and `bags` of the model; images, tokens and lengths of the batch.
    Parts: "nll", in nats a word, of the words that are there; "word_recall": the share of them among the model's K
    likeliest.
    """

    takes_cached: ClassVar[bool] = True

    def __init__(self, config: BagOfWordsConfig, model: Model) -> None:
        if not hasattr(model, "word_logits"):
            raise ConfigError(
                f"BagOfWords must be given a model that predicts words (word_logits, bags); got "
                f"{type(model).__name__}. Use models.word_predictor."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        model: Any = self.model
        if batch.tokens is None or batch.lengths is None:
            raise ConfigError("BagOfWords must be given batches with texts; got one without. Use paired data.")
        cached = batch.cached or {}
        vectors = cached["image"] if "image" in cached else model.image_vectors(batch.images)
        logits = model.word_logits(model.features_from(vectors))
        bags = model.bags(batch.tokens, batch.lengths)
        words = bags.sum(1)
        share = bags / words.clamp_min(1)[:, None]
        if model.config.words == "softmax":
            nll = each = -(share * logits.log_softmax(-1)).sum(1)
        else:
            nll = -(share * F.logsigmoid(logits)).sum(1)
            all_words = F.binary_cross_entropy_with_logits(logits, bags.float(), reduction="none").sum(1)
            each = torch.where(words > 0, all_words / words.clamp_min(1), 0)
        count = (words > 0).sum().float()
        parts = {"nll": nll.detach().sum() / count.clamp_min(1), "word_recall": _recall(logits.detach(), bags)}
        return Losses(each.sum() / count.clamp_min(1), count, parts)


def _recall(logits: Tensor, bags: Tensor) -> Tensor:
    """The mean over texts with words of the share of their K words that are among the K likeliest."""
    words = bags.sum(1)
    most = min(64, logits.shape[1])
    best = logits.topk(most, 1).indices
    hits = bags.gather(1, best) & (torch.arange(most, device=best.device) < words[:, None])
    return (hits.sum(1) / words.clamp_min(1)).sum() / (words > 0).sum().clamp_min(1)
