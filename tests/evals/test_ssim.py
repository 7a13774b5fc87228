import pytest
import torch

from diptych.evals.ssim import MOST_DB, psnr, ssim
from tests import torchvision_on_cpu


def pictures(side=24):
    g = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (3, 3, side, side), generator=g, dtype=torch.uint8)
    return a, (a.float() * 0.7 + 60 * torch.rand(a.shape, generator=g)).to(torch.uint8)


def test_equal_images_are_as_alike_as_can_be():
    a, b = pictures()
    assert torch.equal(ssim(a, a), torch.ones(3).double())
    assert torch.equal(psnr(a, a), torch.full((3,), MOST_DB).double())
    assert (ssim(a, b) < 0.99).all()
    assert ssim(a[..., :4, :4], a[..., :4, :4]).tolist() == [1, 1, 1]


def test_they_are_torchmetrics_numbers():
    torchvision_on_cpu.install()
    public = pytest.importorskip("torchmetrics.functional.image")
    a, b = pictures()
    for i in range(3):
        x, y = a[i : i + 1].double(), b[i : i + 1].double()
        # torchmetrics also counts windows that are filled up by reflection beyond the border: here they are cut off
        _, whole = public.structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True)
        assert ssim(a, b)[i].item() == pytest.approx(whole[..., 5:-5, 5:-5].mean().item(), abs=1e-6)
        theirs = public.peak_signal_noise_ratio(x, y, data_range=255.0)
        assert psnr(a, b)[i].item() == pytest.approx(theirs.item(), abs=1e-5)
