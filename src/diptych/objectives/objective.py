"""What is minimised: an objective wraps the model, so that DDP, FSDP and compile see one forward."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.models.model import Model

Self = TypeVar("Self", bound="Objective")


class Losses(NamedTuple):
    """`total` is a mean over `count` terms, so ranks and micro-batches average exactly; `parts` are for the log."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # a field, not tuple.count
    parts: dict[str, Tensor]


class ObjectiveConfig(Config):
    """Base of every objective's settings."""

    abstract: ClassVar[bool] = True

    def build(self, model: Model) -> "Objective":
        """The objective around `model`."""
        raise NotImplementedError


class Objective(nn.Module, ABC):
    """Wraps the model and owns what only training needs (mask token, pixel decoder, teacher).

    An uncoupled objective (couples_pairs False) implements `forward`. A coupled one (contrastive) splits it in two, so
    that `train/accumulate.py` can cache embeddings: `encode` (per pair; run in micro-batches) and `loss` (over the
    whole global batch); its `forward` is ``self.loss(self.encode(batch), batch)``.
    """

    couples_pairs: ClassVar[bool] = False
    """Whether a pair's loss depends on the other pairs of the batch."""
    uses: frozenset[str] = frozenset({"image", "text"})
    """What it reads of a record; what no one reads is neither decoded nor tokenised. "words": also which tokens begin a
    word."""
    writes: ClassVar[bool] = False
    """Whether it is about writing text that images should decide: then its loss with other images is watched too."""
    takes_alone: ClassVar[bool] = False
    """Whether one that couples pairs takes records of an image or a text alone beside them."""
    takes_patches: ClassVar[bool] = False
    """Whether `encode` takes `Batch.patches` in place of images."""
    takes_cached: ClassVar[bool] = False
    """Whether `encode` takes a tower's vectors from `Batch.cached` where it finds them."""

    teacher: str = ""
    """A model folder whose vectors each batch must bring as `cached` "teacher_image" and "teacher_text"; "": none."""
    model: Model
    at_rest: tuple[str, ...]
    """Names of modules that stay in eval mode whatever `train` says: they are frozen (`train/freeze.py`)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.at_rest = ()

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode, or not, for all but what rests."""
        super().train(mode)
        for name in self.at_rest:
            self.get_submodule(name).eval()
        return self

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """The loss of this rank's share of the batch. Under DDP the mean over ranks is the loss of the global batch."""

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Per-pair tensors, first dimension = pair, that `loss` couples. Only where `couples_pairs`."""
        raise NotImplementedError

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The loss from what `encode` returned. `batch` may lack images and tokens: only its ids are read."""
        raise NotImplementedError

    def keys(self, batch: Batch) -> Int64[Tensor, " b"]:
        """What decides each sample's draws (masks, negatives, noise), on the model's device, so that neither pieces nor
        ranks nor restarts change them; where a batch does not say, drawn from torch's state."""
        device = self.model.pixel_mean.device
        if batch.sample_keys is None:
            return torch.randint(1 << 62, (batch.size,)).to(device)
        return batch.sample_keys.to(device)

    def after_step(self) -> None:
        """Called after every optimizer step, also one that the device has skipped: where an average of the model moves
        on. Called twice without a step between, it must do what it does once, or next to it."""
        self.model.after_step()

    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """Cheap numbers for the doctor and the log (logit scale, chance-level loss, share of duplicates).

        May be a collective, so every rank calls it. `batch` may lack images and tokens.
        """
        return {}
