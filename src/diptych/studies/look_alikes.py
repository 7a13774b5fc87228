"""Which pictures look like one before them, by the rule of the filter `decontaminate`: wider than that of near
duplicates, since what studies judge by must hold no two of a kind."""

from jaxtyping import Bool
from numpy import ndarray

from diptych.data.filters.decontaminate import DecontaminateConfig
from diptych.data.filters.near_duplicates import NearDuplicatesConfig, earlier_copy
from diptych.data.hash_pairs import pack_hashes
from diptych.data.near_copies import Sketches


def like_an_earlier(sketches: Sketches) -> Bool[ndarray, " n"]:
    """Of each picture, whether one before it is near it."""
    wide = DecontaminateConfig()
    rule = NearDuplicatesConfig(most_bits=wide.most_bits, tolerance=wide.tolerance, most_compared=0)
    return earlier_copy(pack_hashes(sketches.bits.numpy()), sketches.miniatures.numpy(), rule) >= 0
