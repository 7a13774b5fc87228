"""What evaluation and serving may ask of a model, whatever its paradigm: ask for these, never for a class name."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import EvalError
from diptych.models.generate import Generation
from diptych.models.painting import Painting


@runtime_checkable
class EmbedsImages(Protocol):
    """Maps uint8 pixels (b 3 h w), already at the model's resolution, to unit vectors."""

    def embed_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]: ...


@runtime_checkable
class EmbedsText(Protocol):
    """Maps token ids with their lengths to unit vectors in the same space."""

    def embed_text(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]: ...


@runtime_checkable
class ScoresPairs(Protocol):
    """Scores every image against every text; higher is a better match.

    Cosine for two towers, a matching logit for fusion, log p(text | image) for captioners, minus the denoising error
    for diffusion. Because every paradigm can do this, zero-shot, retrieval and compositional evals run on all of them.
    """

    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]: ...


@runtime_checkable
class GeneratesText(Protocol):
    """Writes token ids about images, each after its prompt (None: only the start).

    It can be asked bit by bit, so that an image is seen once for all that is said of it: `image_features` are what it
    reads of images, `begin` reads them and prompts (`begin_images`: images alone) and returns a state, from which
    `models.generate.write` goes on, and of which `likelihoods` are log p(text | what was read), of each row read and
    each text (`models/writer.py`).
    """

    def generate_text(
        self, images: UInt8[Tensor, "b 3 h w"], prompts: list[list[int]] | None, how: Generation
    ) -> list[list[int]]: ...

    def image_features(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]: ...

    def begin_images(self, images: UInt8[Tensor, "i 3 h w"]) -> Any: ...

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> Any: ...

    def likelihoods(
        self, state: Any, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]: ...


@runtime_checkable
class RatesText(Protocol):
    """Says how likely texts are: given an image, and by themselves. What a fluent but blind model says is the same."""

    def log_likelihood(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]: ...

    def text_prior(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, " b"]: ...


@runtime_checkable
class GeneratesImages(Protocol):
    """Paints an image for each text, as uint8 pixels."""

    def generate_image(
        self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"], how: Painting
    ) -> UInt8[Tensor, "b 3 h w"]: ...


@runtime_checkable
class RatesImages(Protocol):
    """Knows how likely images are: given a text, which is then its `score`, and by themselves. What a model of images
    that reads no words says is the same."""

    def image_prior(self, images: UInt8[Tensor, "i 3 h w"]) -> Float[Tensor, " i"]: ...


@runtime_checkable
class Reconstructs(Protocol):
    """Sees an image through the little that it keeps of it: there and back."""

    def reconstruct(self, images: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 s s"]: ...


@runtime_checkable
class FillsIn(Protocol):
    """Rebuilds what was hidden of an image and of a text, from what is left of it and from the other.

    Returns how badly: the error of each cell of the image (mean squared or absolute, or -log p of its code: the model
    says which unit by `fill_unit`), and -log p of each true token; 0 where nothing was hidden. The other side may be
    left out (None), or be another pair's: what it is good for is the difference.
    """

    fill_unit: str

    def fill_grid(self) -> tuple[int, int]: ...

    def fill_image(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        masked: Bool[Tensor, "b n"],
        tokens: Int64[Tensor, "b t"] | None,
        lengths: Int64[Tensor, " b"] | None,
    ) -> Float[Tensor, "b n"]: ...

    def fill_text(
        self,
        tokens: Int64[Tensor, "b t"],
        lengths: Int64[Tensor, " b"],
        masked: Bool[Tensor, "b t"],
        images: UInt8[Tensor, "b 3 h w"] | None,
    ) -> Float[Tensor, "b t"]: ...


CAPABILITIES: dict[str, type] = {
    "embed_image": EmbedsImages,
    "embed_text": EmbedsText,
    "score": ScoresPairs,
    "generate_text": GeneratesText,
    "log_likelihood": RatesText,
    "generate_image": GeneratesImages,
    "image_prior": RatesImages,
    "reconstruct": Reconstructs,
    "fill_in": FillsIn,
}


def capabilities_of(model: object) -> tuple[str, ...]:
    """The names of what `model` can do."""
    return tuple(name for name, protocol in CAPABILITIES.items() if isinstance(model, protocol))


def require(model: object, needs: tuple[str, ...], who: str) -> None:
    """Raise an EvalError that says what is missing, if `model` lacks one of `needs`."""
    has = capabilities_of(model)
    missing = [n for n in needs if n not in has]
    if missing:
        raise EvalError(
            f"{who} must be given a model with {', '.join(needs)}; got {type(model).__name__} with "
            f"{', '.join(has) or 'none of the capabilities'}. Choose an eval that needs only those."
        )
