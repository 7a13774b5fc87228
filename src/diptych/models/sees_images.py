"""Models that see images by tokens of them, of which a frozen part need be computed only once (`train/tables.py`)."""

from abc import ABC, abstractmethod

from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.image_reading import ImageReading
from diptych.models.model import Model
from diptych.models.tower import ImageTower


class SeesImages(Model, ABC):
    """What is seen of an image (`image_features`) is found in two steps, of which a table may hold the first."""

    @abstractmethod
    def image_vectors(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i n"]:
        """All of `image_features` that a frozen image tower needs to compute only once, a row an image."""

    @abstractmethod
    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p d"]:
        """The rest of `image_features`."""

    @abstractmethod
    def table_width(self, kind: str) -> int:
        """How wide the rows of `image_vectors` are."""

    def image_features(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i p d"]:
        """What the text side reads of images."""
        return self.features_from(self.image_vectors(images))

    def features_of(self, batch: Batch) -> Float[Tensor, "i p d"] | None:
        """The features of a batch's images, from a table's vectors where it brings them; None: it has no images."""
        if batch.cached is not None and "image" in batch.cached:
            return self.features_from(batch.cached["image"])
        return None if batch.images is None or not len(batch.images) else self.image_features(batch.images)


class ReadsTower(SeesImages):
    """Sees what `reading` reads of `image_tower`; `features_from` may go on from there (a connector)."""

    image_tower: ImageTower
    reading: ImageReading

    def image_vectors(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> Float[Tensor, "i n"]:
        return self.reading(self.image_tower, self.normalise(images)).flatten(1)

    def features_from(self, vectors: Float[Tensor, "i n"]) -> Float[Tensor, "i p c"]:
        return vectors.unflatten(1, (self.reading.given.tokens, -1))

    def table_width(self, kind: str) -> int:
        return self.reading.given.tokens * self.reading.given.width
