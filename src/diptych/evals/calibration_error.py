"""How far confidence is from accuracy: the expected calibration error, its bins, and what noise alone would show."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from diptych.core.seeds import numpy_generator
from diptych.evals.eval import Estimate
from diptych.evals.statistics import bootstrap_weights
from diptych.report.figures import Bin

Binning = Literal["equal_width", "equal_mass"]


class Bins(NamedTuple):
    """How confidences are put into bins: `number` of them that divide 0..1 ("equal_width": Guo et al., "On Calibration
    of Modern Neural Networks", 2017) or hold equally many ("equal_mass": Nguyen and O'Connor, 2015)."""

    binning: Binning = "equal_width"
    number: int = 15


GUO = Bins()


def calibration_error(
    confidence: Float64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    samples: int = 1000,
    seed: int = 0,
    clusters: Int64[np.ndarray, " n"] | None = None,
    bins: Bins = GUO,
) -> Estimate:
    """The expected calibration error (L1): |accuracy - confidence| of each bin, weighted by how full it is."""
    draws = np.concatenate(list(resampled_errors(confidence, hits, samples, seed, clusters, bins)))
    n = len(hits) if clusters is None else len(np.unique(clusters))
    value = plain_error(confidence, hits, bins)
    low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
    # resampling adds noise, and noise only ever adds to a sum of absolute values: keep the value inside
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, higher_is_better=False)


def plain_error(
    confidence: Float64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    bins: Bins = GUO,
) -> float:
    """The expected calibration error as a number."""
    gap = np.bincount(bin_of(confidence, bins), weights=hits - confidence, minlength=bins.number)
    return float(np.abs(gap).sum() / len(hits))


def resampled_errors(
    confidence: Float64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    samples: int,
    seed: int,
    clusters: Int64[np.ndarray, " n"] | None = None,
    bins: Bins = GUO,
) -> list[Float64[np.ndarray, " s"]]:
    """The error in each of `samples` resamples of the clusters, in blocks; alike for equal clusters and seed, so that
    two sets of confidences of the same images can be compared resample by resample. Bins stay where they are."""
    label = np.arange(len(hits)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    count = int(label.max()) + 1
    gap = np.zeros((count, bins.number))
    np.add.at(gap, (label, bin_of(confidence, bins)), hits - confidence)
    size = np.bincount(label, minlength=count).astype(float)
    return [np.abs(w @ gap).sum(1) / (w @ size) for w in bootstrap_weights(count, samples, seed, "ece")]


class Noise(NamedTuple):
    """What the error of a perfectly calibrated model would be on as many images, for nothing but noise: its mean, the
    value that it exceeds in 5 % of cases, and how often it would be as large as the one found (p)."""

    mean: float
    most: float
    p_value: float


def noise_level(
    confidence: Float64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    samples: int = 1000,
    seed: int = 0,
    bins: Bins = GUO,
) -> Noise:
    """Consistency resampling (Bröcker and Smith, "Increasing the Reliability of Reliability Diagrams", 2007): outcomes
    are drawn with exactly the confidences as their probabilities, and the error is taken of each draw."""
    generator = numpy_generator(seed, "calibration", "noise")
    place, found = bin_of(confidence, bins), plain_error(confidence, hits, bins)
    member = np.zeros((len(hits), bins.number))
    member[np.arange(len(hits)), place] = 1
    step, errors = max(1, (1 << 22) // len(hits)), []
    for start in range(0, samples, step):
        drawn = generator.random((min(step, samples - start), len(hits))) < confidence
        errors.append(np.abs((drawn - confidence) @ member).sum(1) / len(hits))
    every = np.concatenate(errors)
    extreme = int((every >= found - 1e-12).sum())
    return Noise(float(every.mean()), float(np.quantile(every, 0.95)), (1 + extreme) / (1 + samples))


def reliability_bins(
    confidence: Float64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    bins: Bins = GUO,
) -> tuple[Bin, ...]:
    """The bins that are not empty: how many are in each, their mean confidence and their accuracy."""
    place = bin_of(confidence, bins)
    return tuple(
        Bin(
            n=int((place == b).sum()),
            confidence=float(confidence[place == b].mean()),
            accuracy=float(hits[place == b].mean()),
        )
        for b in np.unique(place).tolist()
    )


def bin_of(confidence: Float64[np.ndarray, " n"], bins: Bins = GUO) -> Int64[np.ndarray, " n"]:
    """The bin of each confidence: open below and closed above, or by rank; equal confidences are never parted."""
    if bins.binning == "equal_width":
        return np.clip(np.ceil(confidence * bins.number).astype(np.int64) - 1, 0, bins.number - 1)
    first = np.searchsorted(np.sort(confidence), confidence, side="left")
    return np.asarray(first * bins.number // len(confidence), dtype=np.int64)
