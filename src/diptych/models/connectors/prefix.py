"""One vector of an image as a few tokens before the text (Frozen)."""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given


class PrefixConfig(ConnectorConfig):
    """Settings of the visual prefix (Tsimpoukelli et al., 2021, arXiv:2106.13884, section 3.2). `count`: its tokens."""

    count: int = Field(default=2, ge=1)

    def build(self, given: Given, width: int) -> "Prefix":
        return Prefix(self, given, width)


class Prefix(Connector):
    """proj(vector), cut into `count` tokens. The vector is the mean of the tokens given: the pooled one, with
    reading.readout=pooled. First weights N(0, 1/in), biases zero."""

    def __init__(self, config: PrefixConfig, given: Given, width: int) -> None:
        super().__init__()
        self.tokens = config.count
        self.proj = nn.Linear(given.width, config.count * width)
        nn.init.normal_(self.proj.weight, std=given.width**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:
        return self.proj(x.mean(1)).unflatten(1, (self.tokens, -1))
