import io

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.core.errors import DataError
from diptych.data.tokenize import Tokenizer
from diptych.models import pretrained, sizes
from diptych.models.pretrained import Pretrained


@pytest.fixture(scope="module")
def model() -> Pretrained:
    tokenizer = Tokenizer.train(["a red cup", "a blue hat"], vocab_size=300, context_length=24)
    return Pretrained(sizes.tiny().build(tokenizer.vocab_size), tokenizer, fingerprint="f")


def _picture() -> Image.Image:
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    return Image.fromarray(pixels)


def test_every_way_to_give_an_image_gives_the_same_vector(model, tmp_path):
    picture = _picture()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(buffer.getvalue())
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    many = [picture, buffer.getvalue(), path, str(path), array, tensor]
    rows = model.embed_image(many)
    assert rows.shape == (6, 256)
    assert torch.equal(rows, rows[:1].expand_as(rows))
    for one in (picture, path, array, tensor):
        assert torch.allclose(model.embed_image(one), rows[:1], atol=1e-6)  # another batch size, another rounding
    assert torch.allclose(rows.norm(dim=1), torch.ones(6), atol=1e-5)


def test_texts_and_scores(model):
    texts = model.embed_text(["a red cup", "a blue hat"])
    assert texts.shape == (2, 256)
    assert torch.allclose(model.embed_text("a red cup"), texts[:1], atol=1e-6)
    scores = model.score(_picture(), ["a red cup", "a blue hat"])
    assert torch.allclose(scores, model.embed_image(_picture()) @ texts.T, atol=1e-5)
    assert model.capabilities == ("embed_image", "embed_text", "score")


def test_batches_do_not_change_what_is_embedded(model):
    texts = [f"a red cup {i}" for i in range(7)]
    assert torch.allclose(model.embed_text(texts, batch_size=3), model.embed_text(texts), atol=1e-5)


def test_texts_are_embedded_by_their_number_of_tokens(model, monkeypatch):
    texts = ["a red cup " * (1 + i % 5) + str(i) for i in range(23)]
    whole = model.embed_text(texts)
    seen, embed = [], model.model.embed_text
    monkeypatch.setattr(model.model, "embed_text", lambda t, n: seen.append((len(n), int(n.sum()))) or embed(t, n))
    monkeypatch.setattr(pretrained, "TOKENS", {"cpu": 60})
    monkeypatch.setattr(pretrained, "TOKENIZED", 10)
    assert torch.allclose(model.embed_text(texts), whole, atol=1e-5)
    assert sum(texts for texts, _ in seen) == 23
    longest = int(model.tokenizer.batch(texts)[1].max())
    assert all(tokens < 60 + longest for _, tokens in seen)
    assert len(seen) < 23
    monkeypatch.setattr(model, "tokenizer", model.tokenizer.replaced(pad_to="context"))
    seen.clear()
    assert torch.allclose(model.embed_text(texts), whole, atol=1e-5)  # a tower that pads computes all of the context
    assert all(texts <= -(-60 // model.tokenizer.context_length) for texts, _ in seen)


def test_what_cannot_be_read_or_done_is_said(model, tmp_path):
    with pytest.raises(DataError, match="must be a file that can be read"):
        model.embed_image(tmp_path / "none.png")
    with pytest.raises(DataError):
        model.embed_image(b"not an image")


def test_embeddings_can_be_trained_on(model):
    probe = torch.nn.Linear(256, 2)
    probe(model.embed_text(["a red cup"])).sum().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([], "at least one; got an empty list"),
        (np.zeros((4, 4)), r"uint8 of shape \(height, width, 3\); got float64 \(4, 4\)"),
        (torch.zeros(3, 4, 4), r"uint8 of shape \(3, height, width\); got torch.float32"),
        (7, "a path, encoded bytes, a PIL image, an array or a tensor; got int"),
    ],
)
def test_what_is_no_image_is_said(model, image, words):
    with pytest.raises(DataError, match=words):
        model.embed_image(image)
    with pytest.raises(DataError, match="texts must be at least one"):
        model.embed_text([])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_pil_images_of_every_mode_are_taken(model, mode):
    assert model.pixels(_picture().convert(mode)).shape == (3, 32, 32)


def test_a_pil_image_is_turned_as_its_file_says(model, tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("black", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert torch.equal(model.pixels(opened), model.pixels(tmp_path / "turned.png"))
    assert not torch.equal(model.pixels(picture), model.pixels(tmp_path / "turned.png"))
