"""The mean of each square of neighbouring tokens, then a map for each of them."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given
from diptych.models.connectors.linear import LinearConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.connectors.pixel_shuffle import check_grid


class AveragePoolConfig(ConnectorConfig):
    """Settings of pooling (DeCo, Yao et al., 2024, arXiv:2405.20985). `factor`: side of a square of tokens that become
    one; `map`: what follows, "linear" or LLaVA 1.5's "mlp"."""

    factor: int = Field(default=2, ge=1)
    map: Literal["linear", "mlp"] = "mlp"

    def build(self, given: Given, width: int) -> "AveragePool":
        return AveragePool(self, given, width)


class AveragePool(Connector):
    """map(mean of the tokens of each square), row by row."""

    def __init__(self, config: AveragePoolConfig, given: Given, width: int) -> None:
        super().__init__()
        check_grid(given, config.factor, "connector.factor")
        self.factor, self.side = config.factor, given.side
        self.tokens = given.tokens // config.factor**2
        pooled = Given(self.tokens, given.width, given.side // config.factor)
        self.map = (LinearConfig() if config.map == "linear" else MLPConnectorConfig()).build(pooled, width)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:
        grid = x.transpose(1, 2).unflatten(2, (self.side, self.side))  # (i, c, side, side)
        return self.map(F.avg_pool2d(grid, self.factor).flatten(2).transpose(1, 2))
