"""One linear map for every token (LLaVA 1.0, MiniGPT-4; GIT with a norm behind it)."""

from jaxtyping import Float
from torch import Tensor, nn

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given
from diptych.nn.norm import build_norm


class LinearConfig(ConnectorConfig):
    """Settings of the linear connector. `norm`: a layer norm behind the map (GIT), of `norm_eps`."""

    norm: bool = False
    norm_eps: float = 1e-5

    def build(self, given: Given, width: int) -> "Linear":
        return Linear(self, given, width)


class Linear(Connector):
    """proj, then norm where there is one. First weights N(0, 1/width), biases zero."""

    def __init__(self, config: LinearConfig, given: Given, width: int) -> None:
        super().__init__()
        self.tokens = given.tokens
        self.proj = nn.Linear(given.width, width)
        self.norm = build_norm("layer", width, config.norm_eps) if config.norm else None
        nn.init.normal_(self.proj.weight, std=given.width**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i p d"]:
        x = self.proj(x)
        return x if self.norm is None else self.norm(x)
