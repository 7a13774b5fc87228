"""ALBEF's pretraining (Li et al., 2021, arXiv:2107.07651): contrast, matching, and foreseeing hidden words.

Hidden words are foreseen from the pair's own image (section 3.2, eq. 3), half by the truth and half by what the teacher
thinks of them (section 3.3, eq. 7): this couples no pairs and is done when a pair is encoded. Matching fuses texts'
states, already read, with other pairs' image tokens, and is part of the loss: cached pieces give exactly the gradient
of the whole batch.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError
from diptych.models.model import Model
from diptych.nn.patch_masking import places_of
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.momentum import MomentumConfig, MomentumObjective
from diptych.objectives.sides import share_of_mean


class AlbefPretrainingConfig(MomentumConfig):
    """Settings of ALBEF's three losses, whose weighted sum is minimised; the paper's weights are 1.

    masked   weight of foreseeing hidden tokens
    masking  which tokens are hidden, and how
    queue    65,536 in the paper
    """

    queue: int = Field(default=65_536, ge=0)
    masked: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    masking: TokenMaskingConfig = TokenMaskingConfig()

    def build(self, model: Model) -> "AlbefPretraining":
        """The objective around `model`."""
        return AlbefPretraining(self, model)


class AlbefPretraining(MomentumObjective):
    """Contrast, matching and hidden tokens. Parts: "contrast", "matching", "mlm" (nats a hidden token, against the
    truth alone); the shares that are right of pairs judged, "matched", and of hidden tokens, "foreseen".
    """

    needs: ClassVar[tuple[str, ...]] = ("read", "match_states", "masked_states", "head", "mask_id")
    third_name: ClassVar[str] = "masked"
    judges: ClassVar[tuple[str, str]] = ("states", "match_states")
    config: AlbefPretrainingConfig

    def __init__(self, config: AlbefPretrainingConfig, model: Model) -> None:
        super().__init__(config, model)
        if config.masking.unit == "word":
            self.uses = self.uses | {"words"}

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """A row a pair each of: "image" and "text" (b e), unit vectors; the teacher's, "image_key" and "text_key";
        "features" (b p c), image tokens, "states" (b context d), of texts read alone, and "lengths", for matching;
        "draw"; of hidden tokens "masked_loss", "mlm", "foreseen" and "hidden" (b), each text's sums of the loss, of
        -log p of the truth, of hits, and their number."""
        model: Any = self.model
        features, tokens, lengths = self.pairs(batch)
        states = model.read(tokens, lengths)
        keys = self.keys_of(batch)
        given = keys.pop("image_tokens", None)
        return {
            "image": model.unit_image(features),
            "text": model.unit_of_state(states[:, 0]),
            "states": self.widened(states),
            **keys,
            **self.shared_rows(batch, features),
            **self._hidden(features, given, batch),
        }

    def third(self, encoded: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        share = share_of_mean(encoded["hidden"])
        parts = {n: encoded[n].sum() * share for n in ("mlm", "foreseen")}
        return self.config.masked * encoded["masked_loss"].sum() * share, parts

    def _hidden(self, features: Tensor, given: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """The loss of foreseeing each text's hidden tokens, summed over them. `given`: the teacher's image tokens."""
        model, c = self.model, self.config.masking
        known: Any = model
        assert batch.tokens is not None
        assert batch.lengths is not None
        tokens, lengths = batch.tokens, batch.lengths
        if c.unit == "word" and batch.word_starts is None:
            raise ConfigError(
                "objective.masking.unit must be 'token' for batches that do not say where words begin; got 'word'. "
                "Let the loader mark words, or hide tokens."
            )
        hidden = mask_tokens(tokens, lengths, self.keys(batch), c, known.mask_id, model.vocab_size, batch.word_starts)
        places = places_of(hidden.masked, c.most(tokens.shape[1]))  # equally many a text: no shape is read back
        bears, targets = hidden.masked.gather(1, places).float(), tokens.gather(1, places)
        log_p = self._logits(known, features, hidden.tokens, lengths, places).log_softmax(-1)
        nll = -log_p.gather(2, targets[..., None])[..., 0]
        loss = nll
        if self.average is not None and given is not None:
            with torch.no_grad():
                soft = self._logits(self.average.model, given, hidden.tokens, lengths, places).softmax(-1)
            share = self.teacher_share()
            loss = (1 - share) * nll - share * (soft * log_p).sum(-1)
        hits = (log_p.argmax(-1) == targets).float()
        return {
            "masked_loss": (loss * bears).sum(1),
            "mlm": (nll.detach() * bears).sum(1),
            "foreseen": (hits * bears).sum(1),
            "hidden": bears.sum(1),
        }

    @staticmethod
    def _logits(
        model: Any, features: Tensor, tokens: Tensor, lengths: Tensor, places: Int64[Tensor, "b k"]
    ) -> Float[Tensor, "b k v"]:
        """What a model thinks of some places of each text, in float32. Only few are hidden, so that all logits of these
        are held at once."""
        states = model.masked_states(features, tokens, lengths, places)
        weight, bias = model.head()
        return torch.nn.functional.linear(states, weight.to(states.dtype)).float() + bias.float()
