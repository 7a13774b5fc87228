import numpy as np
import pytest
import torch
from PIL import Image

from diptych.core.errors import ConfigError, ServeError
from diptych.serve.paint import LEAST_SIDE, grid, paint
from tests.evals import fakes
from tests.evals.fake_painter import painter


def _red(side=8):
    return torch.tensor([200, 10, 20], dtype=torch.uint8).view(3, 1, 1).repeat(1, side, side)


def _pixels(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def test_one_picture_is_written_as_it_was_painted(tmp_path):
    model = painter({"a red square": _red()})
    path = paint(model, ["a red square"], tmp_path / "deep" / "x.png", settings=["seed=3", "guidance=4", "top_k=9"])
    assert torch.equal(_pixels(path), _red())
    how = model.model.asked[-1]
    assert (how.seed, how.guidance, how.top_k, how.steps) == (3, 4.0, 9, 0)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.png"], "nothing half written is left"


def test_a_grid_has_a_row_a_text_and_a_column_a_seed(tmp_path):
    model = painter({"a red square": _red()})
    texts = ["a red square", "words that it does not know"]
    path = paint(model, texts, tmp_path / "x.png", seeds=3, settings=["seed=5"])
    assert [how.seed for how in model.model.asked] == [5, 6, 7]
    shown = _pixels(path)
    rows = torch.stack([model.paint(texts, seed=5 + n) for n in range(3)], 1)
    assert torch.equal(shown, grid(rows, texts))
    assert shown.shape[2] == 8 + 3 * (LEAST_SIDE + 8), "small pictures are enlarged"
    times = LEAST_SIDE // 8
    corner = shown[:, 28 : 28 + LEAST_SIDE, 8 : 8 + LEAST_SIDE]
    assert torch.equal(corner[:, ::times, ::times], _red())
    noise = shown[:, -8 - LEAST_SIDE : -8, 8 : 8 + LEAST_SIDE][:, ::times, ::times]
    assert torch.equal(noise, rows[1, 0])
    assert not torch.equal(rows[1, 0], rows[1, 1])


def test_long_texts_are_cut_and_large_pictures_stay_as_they_are():
    large = torch.zeros(1, 1, 3, 200, 200, dtype=torch.uint8)
    assert grid(large, ["a long text " * 99]).shape == (3, 236, 216)


def test_mistakes_are_said_before_anything_is_painted(tmp_path):
    model, out = painter({}), tmp_path / "x.png"
    out.write_bytes(b"mine")
    with pytest.raises(ServeError, match=r"the picture must go to a new place; .*x.png is there.*--overwrite"):
        paint(model, ["a"], out)
    assert out.read_bytes() == b"mine"
    with pytest.raises(ServeError, match="painting must be given texts with words"):
        paint(model, [], tmp_path / "y.png")
    with pytest.raises(ServeError, match="painting must be given texts with words"):
        paint(model, ["a", "  "], tmp_path / "y.png")
    with pytest.raises(ServeError, match="at least 1 seed a row; got 0"):
        paint(model, ["a"], tmp_path / "y.png", seeds=0)
    with pytest.raises(ServeError, match=r"must be a .png file.*got .*y.jpg"):
        paint(model, ["a"], tmp_path / "y.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ServeError, match="the picture must go to a new place"):
        paint(model, ["a"], tmp_path / "folder.png", overwrite=True)
    with pytest.raises(ConfigError, match="Did you mean 'guidance'"):
        paint(model, ["a"], tmp_path / "y.png", settings=["guidence=3"])
    with pytest.raises(ServeError, match="painting must be asked of a model that paints; got Embeds with embed_image"):
        paint(fakes.model(), ["a"], tmp_path / "y.png")
    assert model.model.asked == []
    assert paint(model, ["a"], out, overwrite=True) == out
    assert out.read_bytes()[:4] == b"\x89PNG"
