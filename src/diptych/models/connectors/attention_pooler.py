"""Learned queries that attend to an image's tokens, once (CoCa's pooler as a connector)."""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.core.errors import ConfigError
from diptych.models.connectors.connector import Connector, ConnectorConfig, Given
from diptych.nn.pool import AttentionPooler as Pooler


class AttentionPoolerConfig(ConnectorConfig):
    """Settings of the pooler. `count`: the tokens that come out; `heads`: of its attention, which must divide the
    language model's width."""

    count: int = Field(default=64, ge=1)
    heads: int = Field(default=8, ge=1)

    def build(self, given: Given, width: int) -> "AttentionPooler":
        if width % self.heads:
            raise ConfigError(
                f"connector.heads must divide the language model's width; got {self.heads} for {width}. Change either."
            )
        return AttentionPooler(self, given, width)


class AttentionPooler(Connector):
    """The tokens that `nn.pool.AttentionPooler` gives, as wide as the language model."""

    def __init__(self, config: AttentionPoolerConfig, given: Given, width: int) -> None:
        super().__init__()
        self.tokens = config.count
        self.pooler = Pooler(config.count, width, given.width, config.heads)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:
        return self.pooler(x)

    def decay_free(self) -> set[str]:
        return {"pooler.query"}
