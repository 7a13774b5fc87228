"""What every model of the house is: a module with a config that builds it, and the pixels and tokens it expects."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.core.image_format import ImageFormat


class ModelConfig(Config):
    """Base of every model's settings. `image_format`: how pixels must arrive. The vocabulary is set at build time."""

    abstract: ClassVar[bool] = True
    image_format: ImageFormat = ImageFormat()
    context_length: int = Field(default=77, gt=0)

    def build(self, vocab_size: int) -> "Model":
        """The model with fresh weights, drawn from torch's global random state."""
        raise NotImplementedError


class Model(nn.Module, ABC):
    """A trainable model: what is kept after training, the temperature included."""

    config: ModelConfig
    vocab_size: int

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.register_buffer("pixel_mean", _channel(config.image_format.mean), persistent=False)
        self.register_buffer("pixel_std", _channel(config.image_format.std), persistent=False)

    pixel_mean: Tensor
    pixel_std: Tensor

    def normalise(
        self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b k c"]
    ) -> Float[Tensor, "b 3 h w"] | Float[Tensor, "b k c"]:
        """Pixels as the towers want them: scaled to 0..1, then shifted and scaled by the format's mean and std.

        Float images are taken as already scaled to 0..255 (augmentation on the device may leave them so).
        Patches (b, k, c) are flattened channel by channel.
        """
        if images.ndim == 3:
            x = images.to(self.pixel_mean.dtype).unflatten(2, (3, -1)) / 255
            return ((x - self.pixel_mean.view(3, 1)) / self.pixel_std.view(3, 1)).flatten(2)
        return (images.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std

    @abstractmethod
    def decay_free(self) -> set[str]:
        """Names of parameters that must never be decayed, besides those with fewer than two dimensions."""

    def after_step(self) -> None:
        """Called after every optimizer step, also one that the device has skipped: the place to clamp a temperature.

        Called twice it must do what it does once.
        """


def _channel(values: tuple[float, float, float]) -> Tensor:
    import torch

    return torch.tensor(values).view(1, 3, 1, 1)
