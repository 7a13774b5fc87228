"""Curations of the house."""

from diptych.data.curate import CurationConfig
from diptych.data.filters.boilerplate import BoilerplateConfig
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.filters.image_size import ImageSizeConfig
from diptych.data.filters.personal_data import PersonalDataConfig
from diptych.data.filters.repetition import RepetitionConfig
from diptych.data.filters.sharpness import SharpnessConfig
from diptych.data.filters.special_characters import SpecialCharactersConfig


def default() -> CurationConfig:
    """What to begin with on small, noisy data of one's own: only what no model can learn from, or should not.

    Any language and any kind of picture stays, drawings too, so limits are wide, and blur and light images do not
    count. Tighten them when the table of reasons has been read.
    """
    return CurationConfig(
        filters=(
            CaptionLengthConfig(min_characters=2, of="any"),
            BoilerplateConfig(of="any"),
            SpecialCharactersConfig(max_share=0.6),
            RepetitionConfig(max_words=0.3, max_characters=0.3),
            PersonalDataConfig(),
            ImageSizeConfig(min_side=16, max_aspect=6.0),
            SharpnessConfig(blurry=0, dark=0.05, light=0, low_information=0.165),
        )
    )
