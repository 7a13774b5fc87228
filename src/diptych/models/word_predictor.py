"""Which words a caption of this image has, in no order: an image tower and one linear map to the vocabulary.

Joulin et al., 2016 (arXiv:1511.02251); the second of the three that CLIP's figure 2 compares (Radford et al., 2021).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.models.model import Model, ModelConfig
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig


class WordPredictorConfig(ModelConfig):
    """Settings of a bag-of-words predictor. Words are tokens of the vocabulary.

    embed_dim  width of the tower's vector, from which words are predicted
    words      "softmax": probabilities of words sum to 1, and a text is a draw of several (Joulin et al.'s better one);
               "sigmoid": each word is there or not, on its own
    specials   how many tokens stand before and behind the words of each text (start and end), which are no words
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    words: Literal["softmax", "sigmoid"] = "softmax"
    specials: tuple[int, int] = (1, 1)

    def build(self, vocab_size: int) -> "WordPredictor":
        return WordPredictor(self, vocab_size)


class WordPredictor(Model):
    """image_tower -> head. First weights of the head N(0, 1/embed_dim), its biases zero."""

    config: WordPredictorConfig

    def __init__(self, config: WordPredictorConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.image_tower = config.image.build(config.image_format.resolution, config.embed_dim)
        self.head = nn.Linear(config.embed_dim, vocab_size)
        nn.init.normal_(self.head.weight, std=config.embed_dim**-0.5)
        nn.init.zeros_(self.head.bias)

    def image_vectors(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """What the image tower returns: all that a frozen one needs to compute only once."""
        return self.image_tower(self.normalise(images))

    def features_from(self, vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """The vectors: nothing lies between tower and head."""
        return vectors

    def word_logits(self, vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b v"]:
        """What an image's vector says of each word, in float32."""
        return self.head(vectors).float()

    def log_words(self, vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b v"]:
        """log p(word | image) of every word, as `words` has it."""
        logits = self.word_logits(vectors)
        return logits.log_softmax(-1) if self.config.words == "softmax" else F.logsigmoid(logits)

    def bags(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Bool[Tensor, "b v"]:
        """Which words each text has, however often; specials are none."""
        before, behind = self.config.specials
        place = torch.arange(tokens.shape[1], device=tokens.device)
        inside = (place >= before) & (place < (lengths.to(tokens.device) - behind)[:, None])  # (b, t)
        bag = torch.zeros(len(tokens), self.vocab_size + 1, dtype=torch.bool, device=tokens.device)
        return bag.scatter_(1, torch.where(inside, tokens, self.vocab_size), True)[:, :-1]

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The mean of log p(word | image) over the words of each text, each counted once."""
        log_p = self.log_words(self.image_vectors(images))
        bags = self.bags(tokens, lengths).to(log_p.dtype)
        with torch.autocast(log_p.device.type, enabled=False):  # sums in bf16 would tie
            return log_p @ bags.T / bags.sum(1).clamp_min(1)

    def decay_free(self) -> set[str]:
        return {f"image_tower.{n}" for n in self.image_tower.decay_free()}
