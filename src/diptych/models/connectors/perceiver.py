"""Flamingo's resampler as a connector: a fixed number of tokens, however many the image has."""

from jaxtyping import Float
from torch import Tensor, nn

from diptych.models.connectors.connector import Connector, ConnectorConfig, Given
from diptych.nn.perceiver import PerceiverResampler, ResamplerConfig


class PerceiverConfig(ConnectorConfig, ResamplerConfig):
    """Settings of the resampler (nn/perceiver.py) as a connector. `decayed`: whether its matrices are decayed; in
    Flamingo they are not (appendix B.1.2)."""

    decayed: bool = False

    def build(self, given: Given, width: int) -> "Perceiver":
        return Perceiver(self, given, width)


class Perceiver(Connector):
    """resampler, which is as wide as what it is given; then proj, N(0, 1/in) at first, where the width asked for is
    another (in Flamingo it is not: the cross-attention's keys and values take what the tower gives)."""

    def __init__(self, config: PerceiverConfig, given: Given, width: int) -> None:
        super().__init__()
        self.config, self.tokens = config, config.latents
        self.resampler = PerceiverResampler(config, given.width)
        self.proj = None if width == given.width else nn.Linear(given.width, width)
        if self.proj is not None:
            nn.init.normal_(self.proj.weight, std=given.width**-0.5)
            nn.init.zeros_(self.proj.bias)

    def forward(self, x: Float[Tensor, "i p c"]) -> Float[Tensor, "i m d"]:
        x = self.resampler(x)
        return x if self.proj is None else self.proj(x)

    def decay_free(self) -> set[str]:
        if self.config.decayed:
            return {f"resampler.{n}" for n in self.resampler.decay_free()}
        return {f"resampler.{n}" for n, p in self.resampler.named_parameters() if p.ndim > 1}
