"""Neighbouring tokens side by side as one, then a linear map: fewer and wider tokens, of which nothing is lost."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.errors import ConfigError
from diptych.models.connectors.connector import Connector, ConnectorConfig, Given


class PixelShuffleConfig(ConnectorConfig):
    """Settings of the shuffle.

    factor      factor^2 tokens become one
    neighbours  "grid": those of a square of the picture (pixel shuffle: InternVL, Chen et al., 2024, arXiv:2404.16821;
                SmolVLM, nanoVLM); "row": those that follow each other, row by row (MiniGPT-v2, Chen et al., 2023,
                arXiv:2310.09478, section 2: four)
    bias        of the map
    """

    factor: int = Field(default=2, ge=1)
    neighbours: Literal["grid", "row"] = "grid"
    bias: bool = True

    def build(self, given: Given, width: int) -> "PixelShuffle":
        return PixelShuffle(self, given, width)


class PixelShuffle(Connector):
    """proj(the neighbours' numbers, one token behind the other, row by row). First weights N(0, 1/in), biases zero."""

    def __init__(self, config: PixelShuffleConfig, given: Given, width: int) -> None:
        super().__init__()
        self.config, self.side = config, given.side
        merged = config.factor**2
        if config.neighbours == "grid":
            check_grid(given, config.factor, "connector.factor")
        elif given.tokens % merged:
            raise ConfigError(
                f"connector.factor squared must divide the tokens of an image; got {config.factor} for {given.tokens}. "
                "Set reading.cls=false if a CLS token is among them, or change the resolution."
            )
        self.tokens = given.tokens // merged
        self.proj = nn.Linear(merged * given.width, width, bias=config.bias)
        nn.init.normal_(self.proj.weight, std=self.proj.in_features**-0.5)
        if config.bias:
            nn.init.zeros_(self.proj.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:
        n = self.config.factor
        if self.config.neighbours == "grid":
            x = x.unflatten(1, (self.side // n, n, self.side // n, n)).transpose(2, 3).flatten(1, 4)
        return self.proj(x.reshape(len(x), self.tokens, -1))


def check_grid(given: Given, factor: int, name: str) -> None:
    """Raise a ConfigError unless the tokens are a square grid whose side `factor`, the setting `name`, divides."""
    if not given.side:
        raise ConfigError(
            f"the tokens of an image must be a square grid for this connector; got {given.tokens}, which are none. Set "
            "reading.cls=false if a CLS token is among them, and reading.readout=tokens."
        )
    if given.side % factor:
        raise ConfigError(
            f"{name} must divide the side of the grid of tokens; got {factor} for a side of {given.side}. Change it, "
            "or the resolution."
        )
