"""Linear, GELU, linear for every token (LLaVA 1.5)."""

from jaxtyping import Float
from torch import Tensor, nn

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given


class MLPConnectorConfig(ConnectorConfig):
    """Settings of the MLP connector (Liu et al., 2023, arXiv:2310.03744, section 3.2)."""

    def build(self, given: Given, width: int) -> "MLPConnector":
        return MLPConnector(given, width)


class MLPConnector(Connector):
    """fc_2(gelu(fc_1 x)), the hidden width being that of the language model. First weights N(0, 1/in), biases zero."""

    def __init__(self, given: Given, width: int) -> None:
        super().__init__()
        self.tokens = given.tokens
        self.fc_1, self.fc_2 = nn.Linear(given.width, width), nn.Linear(width, width)
        for linear in (self.fc_1, self.fc_2):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i p d"]:
        return self.fc_2(nn.functional.gelu(self.fc_1(x)))
