"""Which held-out images have a near copy among the training images: the same bytes, or the same picture saved anew.

Two steps. A perceptual hash of 64 bits finds candidates, all against all. Then the candidates' miniatures are compared
pixel by pixel, for pictures with much empty ground have near hashes without being alike. What survives re-encoding,
resizing, a change of the aspect ratio or of brightness is found; crops, mirror images and drawings over a picture are
not.

The hash is the signs of random projections (Charikar, "Similarity estimation techniques from rounding algorithms", STOC
2002, section 3), by which the share of bits in which two pictures differ is the angle between them over pi. What is
projected is the cosine transform in colour, each frequency times its height, since natural pictures have as much less
of the higher ones. The signs of the transform itself (pHash: Zauner, 2010) are lost where a picture is symmetric: half
of them are then those of rounding errors, and one in eight drawings saved anew was missed by it (LOG.md, 2026-11-26).

Memory: 800 bytes a training image, whatever the number of held-out ones.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from diptych.core.errors import DataError, ShardError
from diptych.core.image_format import ImageFormat
from diptych.data.decode import decode_image, resize_image
from diptych.data.image_reader import ImageReader

SIDE = 32
"""Images are squashed to this side before anything is computed of them."""

BITS = 64
FREQUENCIES = 16
"""Of the cosine transform, in each direction, of which a hash is made."""
MINIATURE = 16
"""Side of the miniatures that are compared."""

PLAIN = 1.0
"""Grey levels (root mean square) by which the miniatures of one picture may differ in any case: a plain one has no
contrast of its own."""

SHIFT = 32.0
"""Grey levels by which the mean of a channel may differ: a copy may be somewhat brighter, but not of another colour."""

FAINTEST = 0.7
"""To which share of its contrast the stronger of two pictures may be weakened to be like the other."""

COLOUR = 0.5
"""How much colour counts in a hash beside grey."""

_CELLS = 1 << 23
_CANDIDATES = 1 << 14


class Sketches(NamedTuple):
    """What is kept of images: where they are in their split, a digest of their bytes, the hash as bits, a miniature."""

    places: list[int]
    digests: list[bytes]
    bits: Bool[Tensor, "n 64"]
    miniatures: UInt8[Tensor, "n p"]


class Copies(NamedTuple):
    """Of each held-out image: the training image (a row of its sketches) that is most like it, -1 if none is near; by
    how many grey levels their miniatures differ; and whether one has its very bytes."""

    nearest: Int64[np.ndarray, " n"]
    apart: Float64[np.ndarray, " n"]
    exact: Bool[np.ndarray, " n"]

    @property
    def near(self) -> Bool[np.ndarray, " n"]:
        """Whether there is a near copy, exact ones among them."""
        return self.nearest >= 0


def perceptual_hash(images: UInt8[Tensor, "b 3 32 32"]) -> Bool[Tensor, "b 64"]:
    """The signs of 64 projections of the weighted cosine transform of grey, red less grey and blue less grey; what is
    the same in every pixel counts in the colours alone."""
    x = images.double()
    grey = torch.einsum("bchw,c->bhw", x, torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64))
    planes = torch.stack([grey, COLOUR * (x[:, 0] - grey), COLOUR * (x[:, 2] - grey)], 1)
    basis = _cosines()
    return (basis @ planes @ basis.T).flatten(1) @ _directions() > 0


def miniature(images: UInt8[Tensor, "b 3 32 32"]) -> UInt8[Tensor, "b p"]:
    """Colour images of MINIATURE pixels a side, flat."""
    return F.avg_pool2d(images.float(), SIDE // MINIATURE).round().to(torch.uint8).flatten(1)


def read_sketches(split: Any, places: Sequence[int], batch_size: int = 64) -> tuple[Sketches, ImageReader]:
    """Decode the images at `places` and keep what is needed to compare them; broken ones are noted in the reader."""
    reader = ImageReader(split, ImageFormat(resolution=SIDE, resize="squash"), batch_size)
    kept: list[int] = []
    digests: list[bytes] = []
    bits, miniatures = [torch.zeros(0, BITS, dtype=torch.bool)], [torch.zeros(0, 3 * MINIATURE**2, dtype=torch.uint8)]
    for batch in reader.batches(places):
        kept += batch.places
        digests += batch.hashes
        bits.append(perceptual_hash(batch.images))
        miniatures.append(miniature(batch.images))
    return Sketches(kept, digests, torch.cat(bits), torch.cat(miniatures)), reader


def sketch_images(
    image: Callable[[int], bytes], places: Sequence[int], batch_size: int = 64
) -> tuple[Sketches, dict[int, str]]:
    """The same of images that ``image(place)`` gives, in this thread, for workers that are processes already; and
    what could not be decoded, with the reason. JPEGs are decoded at the smallest scale with twice SIDE, which costs
    half a grey level."""
    format, broken = ImageFormat(resolution=SIDE, resize="squash"), dict[int, str]()
    kept, digests = list[int](), list[bytes]()
    bits, miniatures = [torch.zeros(0, BITS, dtype=torch.bool)], [torch.zeros(0, 3 * MINIATURE**2, dtype=torch.uint8)]
    for start in range(0, len(places), batch_size):
        images = []
        for place in places[start : start + batch_size]:
            try:
                data = image(place)
                images.append(resize_image(decode_image(data, at_least=2 * SIDE), format))
            except ShardError:  # not one record but a file of them: it must be mended, not passed over
                raise
            except DataError as error:
                broken[place] = str(error)
                continue
            kept.append(place)
            digests.append(hashlib.blake2b(data, digest_size=16).digest())
        if images:
            bits.append(perceptual_hash(torch.stack(images)))
            miniatures.append(miniature(torch.stack(images)))
    return Sketches(kept, digests, torch.cat(bits), torch.cat(miniatures)), broken


def find_copies(held: Sketches, train: Sketches, most_bits: int, tolerance: float) -> Copies:
    """The nearest copy of each held-out image among the training images.

    A candidate differs in at most `most_bits` of the hash. It is a near copy if the root mean square difference of the
    miniatures, each channel taken about its mean, is at most `tolerance` of the picture's own contrast (its standard
    deviation in the same sense) or PLAIN grey levels, and the means differ by at most SHIFT.
    """
    n = len(held.places)
    nearest, apart = np.full(n, -1), np.full(n, np.inf)
    signs = 2.0 * train.bits.float() - 1
    step = max(1, _CELLS // max(1, len(train.places)))
    for start in range(0, n, step):
        mine = 2.0 * held.bits[start : start + step].float() - 1
        differing = (BITS - mine @ signs.T) / 2  # (c, n): exact, of whole numbers below 2^24
        row, column = (differing <= most_bits).nonzero(as_tuple=True)
        for some in torch.arange(len(row)).split(_CANDIDATES):
            r, c = row[some] + start, column[some]
            limit, distance = compare_miniatures(held.miniatures[r], train.miniatures[c], tolerance)
            for i, j, d in zip(*(x[distance <= limit].tolist() for x in (r, c, distance)), strict=True):
                if d < apart[i]:
                    nearest[i], apart[i] = j, d
    known = {digest: j for j, digest in reversed(list(enumerate(train.digests)))}
    exact = np.array([d in known for d in held.digests], dtype=bool)
    for i in np.flatnonzero(exact).tolist():
        nearest[i], apart[i] = known[held.digests[i]], 0.0
    return Copies(nearest, apart, exact)


def nearest_vectors(
    held: Float[Tensor, "n e"], train: Float[Tensor, "t e"], own: Int64[Tensor, " n"] | None = None
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The cosine and the row of each held-out vector's nearest training vector, in chunks. `own`: the row that is the
    vector itself and does not count, where training vectors are compared among themselves."""
    best, place = np.empty(len(held)), np.empty(len(held), np.int64)
    step = max(1, _CELLS // len(train))
    for start in range(0, len(held), step):
        cosines = held[start : start + step] @ train.T
        if own is not None:
            cosines[torch.arange(len(cosines)), own[start : start + step]] = -torch.inf
        value, where = cosines.max(1)
        best[start : start + step], place[start : start + step] = value.double().numpy(), where.numpy()
    return best, place


class Shades(NamedTuple):
    """Mean and variance of each channel of miniatures, in grey levels: what is known of a pair before its pixels."""

    means: Float64[Tensor, "n 3"]
    variances: Float64[Tensor, "n 3"]

    def of(self, rows: Int64[Any, " p"]) -> "Shades":
        """Those of some rows."""
        return Shades(self.means[rows], self.variances[rows])


def shades(miniatures: UInt8[Tensor, "n f"]) -> Shades:
    """Of each miniature. Sums of 256 squares of bytes are below 2^24: exact in float32, in any order."""
    x = miniatures.float().unflatten(1, (3, -1))
    means = x.sum(2).double() / x.shape[2]
    return Shades(means, x.square_().sum(2).double() / x.shape[2] - means.square())


def may_be_near(a: Shades, b: Shades, tolerance: float) -> Bool[Tensor, " p"]:
    """Whether p pairs can be near at all: the distance of two miniatures, one of them weakened, is at least that of
    their channels' standard deviations (the triangle inequality)."""
    strong, weak = _by_contrast(a, b)
    high, low = (x.variances.clamp_min(0).sqrt() for x in (strong, weak))
    gain = _gain((high * low).mean(1), high.square().mean(1))[:, None]
    apart = (gain * high - low).square().mean(1).sqrt()
    darkest, brightest = FAINTEST * strong.means - SHIFT, strong.means + SHIFT
    same_colour = ((weak.means >= darkest) & (weak.means <= brightest)).all(1)
    return same_colour & (apart <= _limit(weak, tolerance) + 1e-6)  # its own rounding


def compare_miniatures(
    a: UInt8[Tensor, "p f"],
    b: UInt8[Tensor, "p f"],
    tolerance: float,
    shade_a: Shades | None = None,
    shade_b: Shades | None = None,
) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """How far the miniatures of p pairs may be apart (-1: they are of another colour), and how far they are, in grey
    levels; `shades` of both, if they are known.

    The one with more contrast is x, the other y; x is weakened by the g in [FAINTEST, 1] that brings it nearest. The
    variance of y - g x is var(y) - 2 g cov(x, y) + g^2 var(x), all of exact sums.
    """
    shade_a, shade_b = shade_a or shades(a), shade_b or shades(b)
    products = a.float().mul_(b).unflatten(1, (3, -1)).sum(2).double() / (a.shape[1] // 3)
    covariances = products - shade_a.means * shade_b.means
    strong, weak = _by_contrast(shade_a, shade_b)
    gain = _gain(covariances.mean(1), strong.variances.mean(1))[:, None]
    differences = weak.variances - 2 * gain * covariances + gain.square() * strong.variances
    shifts = [(weak.means - share * strong.means).abs().amax(1) for share in (1.0, gain)]
    limit = _limit(weak, tolerance).masked_fill(torch.minimum(*shifts) > SHIFT, -1.0)
    return limit, differences.mean(1).clamp_min(0).sqrt()


def _by_contrast(a: Shades, b: Shades) -> tuple[Shades, Shades]:
    """Of each pair the one with more contrast, and the other; where both have as much, the brighter one first, so
    that the order in which they are given never matters."""
    first, second = a.variances.sum(1), b.variances.sum(1)
    swap = ((first < second) | ((first == second) & (a.means.sum(1) < b.means.sum(1))))[:, None]
    pairs = ((a.means, b.means), (a.variances, b.variances))
    return Shades(*(torch.where(swap, y, x) for x, y in pairs)), Shades(*(torch.where(swap, x, y) for x, y in pairs))


def _gain(product: Float64[Tensor, " p"], square: Float64[Tensor, " p"]) -> Float64[Tensor, " p"]:
    """The g in [FAINTEST, 1] for which y - g x is least, from the means of x y and of x x."""
    return torch.where(square > 0, product / square, 1.0).clamp(FAINTEST, 1.0)


def _limit(weak: Shades, tolerance: float) -> Float64[Tensor, " p"]:
    """How far pairs may be apart, by the one with less contrast."""
    return (tolerance * weak.variances.mean(1).clamp_min(0).sqrt()).clamp_min(PLAIN)


@lru_cache(1)
def _cosines() -> Float64[Tensor, "16 32"]:
    """The first 16 rows of the discrete cosine transform (type II, orthonormal) of 32 numbers."""
    k, t = torch.arange(FREQUENCIES, dtype=torch.float64)[:, None], torch.arange(SIDE, dtype=torch.float64)
    basis = torch.cos(math.pi * k * (2 * t + 1) / (2 * SIDE)) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return basis


@lru_cache(1)
def _directions() -> Float64[Tensor, "768 64"]:
    """Of each frequency of grey, red, blue: its weight, with the sign that each of the 64 projections gives it. The
    signs are the bits of SHAKE-128 of a name, so that hashes are the same everywhere."""
    k = torch.arange(FREQUENCIES, dtype=torch.float64)
    height = (k[:, None].square() + k.square()).sqrt()
    grey, colour = height.clone(), height.clone()
    grey[0, 0], colour[0, 0] = 0.0, 1.0
    weights = torch.stack([grey, colour, colour]).flatten()
    drawn = hashlib.shake_128(b"diptych perceptual hash").digest(len(weights) * BITS // 8)
    signs = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(-1, BITS)
    return weights[:, None] * (2.0 * torch.from_numpy(signs).double() - 1)
