"""A run of ours, trained by the loop from pixels and captions, in the hands of the other libraries, and back."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from diptych.checkpoints.convert import convert, convert_to
from diptych.checkpoints.native import load
from diptych.core.image_format import ImageFormat
from diptych.data.dataset import Dataset
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.train.loop import train
from tests.train.tiny_run import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow
TOLERANCE = {"atol": 2e-6, "rtol": 1e-4}
"""Unit vectors in float32, and the other library adds up in another order."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("trained") / "data")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 steps of a small ViT and a causal text tower that pools at EOS, and an average of their weights."""
    model = TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=16,
        embed_dim=16,
        image=VisionTransformerConfig(patch_size=4, width=64, depth=2, heads=1, patch_dropout=0.25),
        text=TextTransformerConfig(width=64, depth=2, heads=1),
    )
    config = tiny_config(data, samples_seen=40 * 16, ema_decay=0.9).replace(model=model)
    return train(config, tmp_path_factory.mktemp("run") / "run", device=torch.device("cpu"))


def examples(data: Path) -> tuple[torch.Tensor, list[str]]:
    """The held-out images at 16 pixels and all their captions."""
    split = Dataset.open(data).split("val")
    pixels = torch.stack([load_pixels(split.image_bytes(i)) for i in range(len(split))])
    return pixels, [text for i in range(len(split)) for text in split.captions(i)]


def load_pixels(content: bytes) -> torch.Tensor:
    from diptych.data.decode import decode_image, resize_image

    return resize_image(decode_image(content), ImageFormat(resolution=16))


def check_back(format: str, out: Path, run: Path, back: Path) -> None:
    """Converted back, the weights' file is the same to the byte, and so are settings and token ids."""
    convert(format, out, back)
    assert (back / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()
    mine, again = load(run), load(back)
    settings = [m.model.config for m in (mine, again)]  # how it was trained is no part of what it is
    one, two = (c.replace(image=c.image.replace(patch_dropout=0.0)) for c in settings)
    assert one == two
    assert again.tokenizer.batch(["a red dot"])[0].tolist() == mine.tokenizer.batch(["a red dot"])[0].tolist()


def test_it_has_learned(run: Path, data: Path) -> None:
    """Or equal embeddings would say nothing: 20 pictures, whose right caption is found far above chance (1 in 20)."""
    mine = load(run)
    split = Dataset.open(data).split("val")
    images = [split.image_bytes(i) for i in range(len(split))]
    best = mine.score(images, [split.captions(i)[0] for i in range(len(split))]).argmax(1)
    assert (best == torch.arange(len(split))).float().mean() >= 0.2


def test_it_embeds_alike_in_transformers(run: Path, data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    mine = load(run)
    convert_to("transformers", run, tmp_path / "out")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "out").eval()
    vocabulary = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    images, texts = examples(data)
    with torch.no_grad():
        inputs = vocabulary(texts, padding=True, truncation=True, return_tensors="pt")
        text = theirs.get_text_features(**inputs).pooler_output
        image = theirs.get_image_features(pixel_values=mine.model.normalise(images)).pooler_output
        logits = theirs(pixel_values=mine.model.normalise(images), **inputs).logits_per_image
    torch.testing.assert_close(normalize(text, dim=-1), mine.embed_text(texts), **TOLERANCE)
    torch.testing.assert_close(normalize(image, dim=-1), mine.model.embed_image(images), **TOLERANCE)
    scale = mine.model.log_logit_scale.exp()
    torch.testing.assert_close(
        logits, scale * mine.embed_image(list(images)) @ mine.embed_text(texts).T, atol=1e-4, rtol=1e-4
    )
    check_back("transformers", tmp_path / "out", run, tmp_path / "back")


def test_it_embeds_alike_in_open_clip(run: Path, data: Path, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    mine = load(run)
    convert_to("open_clip", run, tmp_path / "out")
    name = f"local-dir:{tmp_path / 'out'}"
    theirs, _ = open_clip.create_model_from_pretrained(name)
    theirs.eval()
    images, texts = examples(data)
    with torch.no_grad():
        text = theirs.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)
        image = theirs.encode_image(mine.model.normalise(images), normalize=True)
    torch.testing.assert_close(text, mine.embed_text(texts), **TOLERANCE)
    torch.testing.assert_close(image, mine.model.embed_image(images), **TOLERANCE)
    torch.testing.assert_close(theirs.logit_scale.data, mine.model.log_logit_scale.data)
    check_back("open_clip", tmp_path / "out", run, tmp_path / "back")
