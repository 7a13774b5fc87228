"""What all that embeds has in common: images and texts as unit vectors in one space, and a learned temperature."""

import math
from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.models.model import Model


class Embedder(Model):
    """`encode_*` are for training, `embed_*` and `score` for use: the same unit vectors in fp32, without gradient.
    `log_logit_scale` is the logarithm of the factor on cosines; the config has `max_logit_scale`."""

    log_logit_scale: Any

    @abstractmethod
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""

    @abstractmethod
    def encode_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Unit vectors in fp32."""

    @torch.no_grad()
    def embed_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """`encode_image` without gradient."""
        return self.encode_image(images)

    @torch.no_grad()
    def embed_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """`encode_text` without gradient."""
        return self.encode_text(tokens, lengths)

    @torch.no_grad()
    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """The cosine of every image and every text."""
        image, text = self.encode_image(images), self.encode_text(tokens, lengths)
        with torch.autocast(image.device.type, enabled=False):  # cosines in bf16 would tie
            return image @ text.T

    @torch.no_grad()
    def after_step(self) -> None:
        """Hold the logit scale in [1, max_logit_scale], after the step, so that its gradient is never cut."""
        if self.log_logit_scale.requires_grad:
            settings: Any = self.config
            self.log_logit_scale.clamp_(0, math.log(settings.max_logit_scale))
