"""The reconstruction eval: a codec that returns what it was given, and one that always returns the same."""

import pytest
import torch

from diptych.core.errors import EvalError
from diptych.evals.reconstruction import ReconstructionConfig
from tests.evals import fakes
from tests.evals.contract import Case


class Copies(fakes.Mute):
    """Returns the images; or, guessing, grey."""

    def reconstruct(self, images):
        return images if self.perfect else torch.full_like(images, 100)


class Thumbs(Copies):
    """Knows the mean colour of an image's quarters."""

    grid = (2, 2)

    def reconstruct(self, images):
        small = torch.nn.functional.interpolate(images.float(), self.grid, mode="area")
        large = torch.nn.functional.interpolate(small, images.shape[2:], mode="bicubic", align_corners=False)
        return large.round().clamp(0, 255).to(torch.uint8)


class Half(Copies):
    def reconstruct(self, images):
        return images[..., ::2, ::2]


def contract_cases():
    return {"codec": lambda perfect, n: Case(fakes.model(Copies, perfect), fakes.pairs(n), {}, n)}


def _run(model, split, artifacts=False, **settings):
    return ReconstructionConfig(**settings).build().run(model, split, artifacts)


def test_a_copy_is_perfect_and_grey_is_no_better_beside_the_right_image():
    split = fakes.pairs(30)
    copy, grey = (_run(fakes.model(Copies, perfect=p), split).metrics for p in (True, False))
    assert (copy["ssim"].value, copy["l1"].value, copy["psnr"].value) == (1, 0, 60)
    assert copy["ssim"].chance < 0.9
    assert not copy["l1"].higher_is_better
    assert grey["psnr"].value == pytest.approx(grey["psnr"].chance)


def test_a_thumbnail_is_not_better_than_itself():
    metrics = _run(fakes.model(Thumbs, perfect=True), fakes.pairs(20)).metrics
    assert metrics["ssim_over_thumbnail"].value == 0
    assert metrics["psnr_over_thumbnail"].value == 0


def test_pictures_show_both_sides():
    result = _run(fakes.model(Copies, perfect=True), fakes.pairs(20), True, pictures=5)
    assert [len(f.pictures) for f in result.figures] == [5, 5]
    assert result.items["images"].values["ssim"].shape == (20,)


def test_another_side_is_refused():
    with pytest.raises(EvalError, match="of the side that it is given"):
        _run(fakes.model(Half, perfect=True), fakes.pairs(3))
    with pytest.raises(EvalError, match="reconstruct"):
        _run(fakes.model(fakes.Mute, perfect=True), fakes.pairs(3))


def test_equal_images_are_one_item_and_one_alone_is_refused():
    split = fakes.pairs(30)
    split.images[10:] = [split.images[0]] * 10 + split.images[20:]
    result = _run(fakes.model(Thumbs, perfect=True), split, True)
    assert {e.n for e in result.metrics.values()} == {20}
    assert len(set(result.items["images"].clusters.tolist())) == 20
    split.images = split.images[:1] * 30
    with pytest.raises(EvalError, match="at least 2 different readable images; got 1 of 30"):
        _run(fakes.model(Copies, perfect=True), split)


def test_pictures_are_found_behind_a_batch_with_a_broken_one():
    split = fakes.pairs(12)
    split.images[1] = b"no picture"
    result = _run(fakes.model(Copies, perfect=True), split, True, pictures=20, batch_size=4)
    assert [len(f.pictures) for f in result.figures] == [11, 11]
    assert len({p.image for p in result.figures[0].pictures}) == 11
