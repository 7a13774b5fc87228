"""DataComp's baselines (Gadre et al., 2023, arXiv:2304.14108, section 3.3 and appendix F), as its code has them.

The text is a pair's first caption, as packing keeps it (blanks around it gone); sizes are the original ones where the
records tell them. What a model must say comes as scores: "clip" (the similarity of image and text; the paper's best is
that of CLIP's ViT-L/14), and "cluster" (the nearest centroid's number). Lists come as files, looked for in the folder
in which the command runs: a TOML of one's own names others.
"""

from diptych.data.curate import CurationConfig
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.filters.image_size import ImageSizeConfig
from diptych.data.filters.in_list import InListConfig
from diptych.data.filters.language import LanguageConfig
from diptych.data.filters.score import ScoreConfig
from diptych.data.filters.word_list import WordListConfig

WORDS = "imagenet21k_words.txt"
"""A word a line: those whose first WordNet synset is one of ImageNet-21k's."""
CLUSTERS = "imagenet1k_clusters.txt"
"""A number a line: the clusters that are the nearest of some training image of ImageNet-1k."""


def basic() -> CurationConfig:
    """English, more than two words and five characters, sides of 200 pixels and more, at most three times as long."""
    return CurationConfig(
        filters=(
            CaptionLengthConfig(min_words=3, min_characters=6),
            ImageSizeConfig(min_side=200, max_aspect=3.0),
            LanguageConfig(),
        )
    )


def clip_score() -> CurationConfig:
    """The best 30 % by "clip"."""
    return CurationConfig(filters=(ScoreConfig(score="clip", fraction=0.3),))


def laion2b() -> CurationConfig:
    """English, and "clip" of 0.28 and more, for which the scores must be of CLIP's ViT-B/32.

    The original identifies the language by gcld3, which installs from source alone; here it is lid.176 as elsewhere.
    """
    return CurationConfig(filters=(ScoreConfig(score="clip", threshold=0.28), LanguageConfig()))


def text_based() -> CurationConfig:
    """English, and a word of ImageNet-21k's synsets: of the file imagenet21k_words.txt."""
    return CurationConfig(filters=(WordListConfig(file=WORDS), LanguageConfig()))


def image_based() -> CurationConfig:
    """English, more than one word and five characters, and a "cluster" that ImageNet-1k's training images hit: of the
    file imagenet1k_clusters.txt."""
    return CurationConfig(filters=_image_based())


def image_and_clip() -> CurationConfig:
    """`image_based` and `clip_score` both, the best 30 % of the whole pool: the recipe of DataComp-1B."""
    return CurationConfig(filters=(ScoreConfig(score="clip", fraction=0.3), *_image_based()))


def _image_based() -> tuple[CaptionLengthConfig, InListConfig, LanguageConfig]:
    length = CaptionLengthConfig(min_words=2, min_characters=6)
    return length, InListConfig(score="cluster", file=CLUSTERS), LanguageConfig()
