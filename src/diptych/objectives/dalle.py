"""DALL-E's loss: a text, and then its image (Ramesh et al., 2021, arXiv:2102.12092, section 2.2)."""

from typing import ClassVar

import torch
from pydantic import Field

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.dalle import Dalle
from diptych.models.model import Model
from diptych.nn.draws import happens
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.token_loss import token_loss


class TextThenImageConfig(ObjectiveConfig):
    """Settings of DALL-E's loss.

    text_weight, image_weight  of the two, divided by their sum: 1 and 7 in the paper
    text_dropped               chance that an image is to be foreseen without its text, so that it can be painted with
                               guidance, and rated by itself
    """

    text_weight: float = Field(default=1.0, ge=0)
    image_weight: float = Field(default=7.0, gt=0)
    text_dropped: float = Field(default=0.1, ge=0, lt=1)

    def build(self, model: Model) -> "TextThenImage":
        """The objective around `model`."""
        return TextThenImage(self, model)


class TextThenImage(Objective):
    """(text_weight L_text + image_weight L_image) / (text_weight + image_weight), a mean over records.

    Of each record L_text is the mean over its words of -log p(word | words before it), L_image that over its codes of
    -log p(code | text, codes before it): so captions of all lengths weigh alike, and pieces and ranks add up. A record
    whose text is dropped has no words, and counts for what it has: image_weight / (text_weight + image_weight).
    Needs: a model of models/dalle.py; images, tokens and lengths of the batch. Parts: "text" and "image", in nats a
    word and a code, each a mean over the records that have it.
    Relation: without dropping and for texts of one length, torch's cross_entropy of the two matrices of logits.
    """

    writes: ClassVar[bool] = False

    def __init__(self, config: TextThenImageConfig, model: Model) -> None:
        if not isinstance(model, Dalle):
            raise ConfigError(
                f"TextThenImage must be given a model that reads a text and then codes; got {type(model).__name__}. "
                "Use models.dalle."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        model, c = self.model, self.config
        assert isinstance(model, Dalle)
        if batch.images is None or batch.tokens is None or batch.lengths is None or len(batch.images) != batch.size:
            raise DataError(
                "TextThenImage must be given one image and one text a record; got a batch with another number of them. "
                "Use data of pairs."
            )
        codes = model.codes(batch.images)
        dropped = happens(self.keys(batch), "dropped text", c.text_dropped)
        found = model.predict(batch.tokens, batch.lengths, codes, dropped, batch.loss_mask)
        b, whole = batch.size, c.text_weight + c.image_weight
        spoken = (~dropped).float()
        words = torch.zeros(b, device=codes.device).index_add(0, found.record, torch.ones_like(found.record).float())
        spoken = spoken * (words > 0)
        each = (spoken / words.clamp_min(1)).index_select(0, found.record)  # a word's share of its record's mean
        text, by_word = token_loss(found.text, model.text_head.weight, None, found.words, scale=each)
        image, by_code = token_loss(found.image, model.image_head.weight, None, found.codes)
        image = image / model.cells
        count = (c.text_weight * spoken.sum() + c.image_weight * b) / whole
        total = (c.text_weight * text + c.image_weight * image) / whole / count
        parts = {"text": (each * by_word.nll).sum() / spoken.sum().clamp_min(1), "image": by_code.nll.mean()}
        return Losses(total, count, parts)
