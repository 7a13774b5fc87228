"""A language model by itself: it reads and writes text, and looks at no image. Frozen recipes start from it."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.language import LanguageConfig
from diptych.models.model import ModelConfig
from diptych.models.sequence_writer import SequenceWriter
from diptych.models.writer import NextTokens, State, empty_prompt, without_loss_mask


class LanguageModelConfig(ModelConfig):
    """Settings of a language model; `image_format` is not used.

    learns  the tokens that bear loss: those "marked" by the data (answers), or "all" but the first, questions too
    """

    language: LanguageConfig = CausalTransformerConfig()
    learns: Literal["marked", "all"] = "marked"

    def build(self, vocab_size: int) -> "LanguageModel":
        return LanguageModel(self, vocab_size)


class LanguageModel(SequenceWriter):
    """`language` under the causal mask. Given images, it says the same of each: it is the blind baseline."""

    config: LanguageModelConfig
    image_tokens: ClassVar[int] = 0

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.language = config.language.build(vocab_size, config.context_length)
        self.vocab_size = self.language.vocab_size  # a folder's may have rows to spare

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        return super().predict(without_loss_mask(batch) if self.config.learns == "all" else batch)

    def image_vectors(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i n"]:
        return torch.zeros(len(images), 0, device=images.device)

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        return vectors.new_zeros(len(vectors), 0, self.language.width)

    def table_width(self, kind: str) -> int:
        return 0

    def features_of(self, batch: Batch) -> None:
        return None

    def begin_images(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> State:
        return self.begin(None, empty_prompt(len(images), images.device))

    @torch.no_grad()
    def text_prior(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """log p(text)."""
        return self.likelihoods(self.begin(None, empty_prompt(1, self.pixel_mean.device)), tokens, lengths)[0]

    def decay_free(self) -> set[str]:
        return {f"language.{n}" for n in self.language.decay_free()}
