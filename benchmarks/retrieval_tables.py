"""Two tables of unit vectors on disk whose ranks are known, and the check of what was found against them.

Items come in families of FAMILY around a direction u of their own. The k-th image leans from u by k steps towards v,
the k-th text by FAMILY - 1 - k steps towards w (u, v, w orthogonal): cos(image, text) is the product of the two
cosines, so that each text finds its image at rank k + 1 and each image its text at rank FAMILY - k. Strangers score
far less than that. Of some families the texts are drawn at random instead: their ranks are anything, and some are
counted anew, densely.
"""

from pathlib import Path

import numpy as np
import torch

FAMILY, STEP = 16, 0.03
_AT_ONCE = 4096  # families


def write_tables(folder: Path, items: int, width: int, lost: float, seed: int = 0) -> None:
    """``images.npy`` and ``texts.npy`` (items, width) in float32, and ``number.npy``: which of all each row is."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    number = random.permutation(items)
    np.save(folder / "number.npy", number)
    row_of = np.argsort(number)
    shape = (items, width)
    images, texts = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape) for name in ("images", "texts")
    )
    angle = STEP * np.arange(FAMILY)
    families = -(-items // FAMILY)
    for start in range(0, families, _AT_ONCE):
        count = min(_AT_ONCE, families - start)
        u, v, w = np.linalg.qr(random.standard_normal((count, width, 3)))[0].transpose(2, 0, 1)[:, :, None]
        leaning = angle[:, None]
        of_image = np.cos(leaning) * u + np.sin(leaning) * v  # (families, FAMILY, width)
        of_text = np.cos(leaning[::-1]) * u + np.sin(leaning[::-1]) * w
        strange = random.standard_normal(of_text.shape)
        strange /= np.linalg.norm(strange, axis=2, keepdims=True)
        of_text = np.where(is_lost(np.arange(start, start + count), lost)[:, None, None], strange, of_text)
        rows = row_of[start * FAMILY : (start + count) * FAMILY]
        images[rows] = of_image.reshape(-1, width)[: len(rows)]
        texts[rows] = of_text.reshape(-1, width)[: len(rows)]


def is_lost(family: np.ndarray, lost: float) -> np.ndarray:
    """Whether the texts of these families are random."""
    return (family * lost) % 1 >= 1 - lost


def check(folder: Path, lost: float, sample: int = 32) -> str:
    """What was compared, in words. Raises ValueError where a rank in ``ranks.npy`` is not what it must be."""
    images, texts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "texts"))
    found, number = np.load(folder / "ranks.npy"), np.load(folder / "number.npy")
    items, (family, place) = len(number), np.divmod(number, FAMILY)
    strange = is_lost(family, lost)
    whole = ~strange & (family < items // FAMILY)
    for way, ranks, planted in (("i2t", found[0], FAMILY - place), ("t2i", found[1], place + 1)):
        wrong = int((ranks[whole] != planted[whole]).sum())
        if wrong:
            raise ValueError(f"{way}: {wrong} of {int(whole.sum())} ranks are not as planted")
    chosen = np.flatnonzero(strange)[:: max(1, int(strange.sum()) // sample)][:sample]
    for way, ranks, mine, others in (("i2t", found[0], images, texts), ("t2i", found[1], texts, images)):
        low, high = _counted(mine[chosen], others, chosen)
        if not ((low <= ranks[chosen]) & (ranks[chosen] <= high)).all():
            raise ValueError(f"{way}: ranks {ranks[chosen]} must lie in {low}..{high}, as counted in float64")
    return f"{int(whole.sum()):,} planted ranks each way are as planted, {len(chosen)} others as counted in float64"


def _counted(queries: np.ndarray, others: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest rank, whichever way what lies within the tie and float32's error is counted."""
    near = 1.5e-6
    mine = torch.from_numpy(queries).double()
    best = (mine * torch.from_numpy(others[right]).double()).sum(1)
    low, high = np.ones(len(queries)), np.zeros(len(queries))  # the right one itself is among those that are near
    for start in range(0, len(others), 1 << 16):
        margin = mine @ torch.from_numpy(others[start : start + (1 << 16)].astype(float)).T - best[:, None]
        low += (margin > near).sum(1).numpy()
        high += (margin >= -near).sum(1).numpy()
    return low, high
