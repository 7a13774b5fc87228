"""Pictures with too many faces, or with faces that are too large."""

from typing import Literal

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.data.candidates import Rows
from diptych.data.decode import BadImage, decode_image
from diptych.data.face_boxes import FIELD, BadBoxes, FaceBox, boxes_in, covered_share
from diptych.data.face_detector import LEAST_SCORE, SIDE, find_faces
from diptych.data.filters.filter import Filter, FilterConfig


class FacesConfig(FilterConfig):
    """Limits of the first image's faces, both ends included.

    by           "boxes": as the record's meta says (DataComp's face_bboxes, and whatever was blurred at packing);
                 "detect": as OpenCV finds them in the pixels (the extra `faces`)
    max_faces    None: any number; 0: none
    max_share    of the picture's area that faces cover; 0.4 is data-juicer's
    without      what becomes of a record whose meta says nothing, where `by` is "boxes"
    field        where in the meta: [[left, top, right, bottom], ...] in shares of the picture's sides
    model, least_score, side   the detector's: see `diptych.data.face_blur`
    """

    by: Literal["boxes", "detect"] = "boxes"
    max_faces: int | None = Field(default=None, ge=0)
    max_share: float = Field(default=0.4, ge=0, le=1)
    without: Literal["keep", "drop"] = "keep"
    field: str = FIELD
    model: str = ""
    least_score: float = Field(default=LEAST_SCORE, gt=0, lt=1)
    side: int = Field(default=SIDE, ge=64, le=4096)

    def build(self) -> "Faces":
        """The filter."""
        return Faces(self)


class Faces(Filter):
    """Reasons: many_faces, large_faces; no_face_boxes, bad_face_boxes of a meta; undecodable, no_image of pixels."""

    def __init__(self, config: FacesConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """The first limit that a picture does not keep; only those that are left are looked at."""
        return [self._reason(rows, i) if alive[i] else "" for i in range(len(rows))]

    def _reason(self, rows: Rows, i: int) -> str:
        if rows.widths[i] == 0:
            return "no_image"
        try:
            faces = boxes_in(rows.meta(i), self.config.field) if self.config.by == "boxes" else self._found(rows, i)
        except BadBoxes:
            return "bad_face_boxes"
        except BadImage:
            return "undecodable"
        if faces is None:
            return "no_face_boxes" if self.config.without == "drop" else ""
        if self.config.max_faces is not None and len(faces) > self.config.max_faces:
            return "many_faces"
        return "large_faces" if covered_share(faces) > self.config.max_share else ""

    def _found(self, rows: Rows, i: int) -> tuple[FaceBox, ...]:
        c = self.config
        return find_faces(decode_image(rows.image(i), at_least=c.side), c.model, c.least_score, c.side)
