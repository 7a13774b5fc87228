"""Images as tokens of a language model: GIT, Frozen, LLaVA, MiniGPT-4 and the second stage of BLIP-2, by settings."""

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.connector import ConnectorConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.image_reading import ImageReading, ImageReadingConfig
from diptych.models.language import LanguageConfig
from diptych.models.model import ModelConfig
from diptych.models.sees_images import ReadsTower
from diptych.models.sequence_writer import SequenceWriter
from diptych.models.tower import ImageTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig


class PrefixLMConfig(ModelConfig):
    """Settings of a language model that reads images.

    image, embed_dim  the tower, and the width of its projection (used where the pooled vector is read)
    reading           which of its outputs are read
    connector         from them to tokens of the language model
    seen              "causal": an image's tokens see those before them (LLaVA); "prefix": each other, and all see them
                      (GIT)
    max_images        images a record may have: the language model's context has room for their tokens
    """

    image: ImageTowerConfig = VisionTransformerConfig()
    embed_dim: int = Field(default=512, gt=0)
    reading: ImageReadingConfig = ImageReadingConfig()
    connector: ConnectorConfig = MLPConnectorConfig()
    language: LanguageConfig = CausalTransformerConfig()
    seen: Literal["causal", "prefix"] = "causal"
    max_images: int = Field(default=1, ge=1)

    def build(self, vocab_size: int) -> "PrefixLM":
        return PrefixLM(self, vocab_size)


class PrefixLM(ReadsTower, SequenceWriter):
    """image_tower -> connector -> language. A frozen image tower is computed once (`image_vectors`)."""

    config: PrefixLMConfig

    def __init__(self, config: PrefixLMConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        c, side = config, config.image_format.resolution
        self.image_tower = c.image.build(side, c.embed_dim)
        self.reading = ImageReading(c.reading, self.image_tower, side)
        self.connector = c.connector.build(self.reading.given, c.language.token_width())
        self.image_tokens = self.connector.tokens
        self.language = c.language.build(vocab_size, c.context_length + c.max_images * self.image_tokens)
        self.vocab_size = self.language.vocab_size  # a folder's may have rows to spare
        self.seen = c.seen

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        return self.connector(super().features_from(vectors))

    def decay_free(self) -> set[str]:
        parts: dict[str, Any] = {
            "image_tower": self.image_tower,
            "connector": self.connector,
            "language": self.language,
        }
        return {f"{name}.{n}" for name, part in parts.items() for n in part.decay_free()}
