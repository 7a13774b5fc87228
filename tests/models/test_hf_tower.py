from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.core.config import override
from diptych.core.errors import ConfigError
from diptych.models.hf_folder import fill_from_folders
from diptych.models.hf_tower import HFImageTowerConfig, HFTextTowerConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.two_tower import TwoTowerConfig
from tests.models.towers import texts
from tests.models.writers import small_prefix_lm, stirred, text_batch

pytest.importorskip("transformers")

from tests.models.hf_models import save_encoder, transformers

SIZES = {"image_size": 16, "patch_size": 8}


def image_tower(path: Path, resolution: int = 16, **values: Any) -> Any:
    tower = HFImageTowerConfig(path=str(path), **values).build(resolution, 32).eval()
    fill_from_folders(tower)
    return tower


@pytest.mark.parametrize(
    "kind,prefix", [("vit", 1), ("clip_vision_model", 1), ("siglip_vision_model", 0), ("dinov2", 1)]
)
def test_an_image_tower_is_theirs(tmp_path: Path, kind: str, prefix: int) -> None:
    theirs = save_encoder(kind, tmp_path, **SIZES)
    tower = image_tower(tmp_path, projection="none")
    images = torch.randn(2, 3, 16, 16)
    out = theirs(images, output_hidden_states=True)
    torch.testing.assert_close(tower.tokens(images), out.last_hidden_state, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower.tokens(images, layer=-2), out.hidden_states[-2], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tower(images), out.pooler_output, atol=1e-6, rtol=1e-5)
    assert tower.prefix == prefix
    assert image_tower(tmp_path, 32).prefix == prefix
    assert image_tower(tmp_path)(torch.randn(2, 3, 32, 32)).shape == (2, 32)


def test_one_of_two_towers_is_taken(tmp_path: Path) -> None:
    block = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    text = {**block, "vocab_size": 50, "max_position_embeddings": 12, "eos_token_id": 49}
    config = transformers.CLIPConfig(vision_config={**block, **SIZES}, text_config=text, projection_dim=8)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 16, 16)
    out = theirs.vision_model(images)
    torch.testing.assert_close(image_tower(tmp_path, projection="none")(images), out.pooler_output)
    tokens, lengths = texts()
    tower = HFTextTowerConfig(path=str(tmp_path), pooling="mean").build(50, 12, 8).eval()
    fill_from_folders(tower)
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    hidden = theirs.text_model(input_ids=tokens, attention_mask=real.long()).last_hidden_state
    torch.testing.assert_close(tower.tokens(tokens, lengths)[real], hidden[real], atol=1e-6, rtol=1e-5)


def test_a_text_tower_is_theirs(tmp_path: Path) -> None:
    theirs = save_encoder("bert", tmp_path, vocab_size=60, max_position_embeddings=20)
    tokens, lengths = texts()
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    out = theirs(input_ids=tokens, attention_mask=real.long())
    for pooling, wanted in (("pooler", out.pooler_output), ("cls", out.last_hidden_state[:, 0])):
        tower = HFTextTowerConfig(path=str(tmp_path), pooling=pooling, projection="none").build(50, 12, 32).eval()
        fill_from_folders(tower)
        torch.testing.assert_close(tower(tokens, lengths), wanted, atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="of at most 60 tokens, and context_length at most 20; got 50 and 30"):
        HFTextTowerConfig(path=str(tmp_path)).build(50, 30, 32)


def test_a_writer_reads_an_earlier_layer_without_the_first_token(tmp_path: Path) -> None:
    theirs = save_encoder("clip_vision_model", tmp_path, **SIZES)
    image = HFImageTowerConfig(path=str(tmp_path))
    model = stirred(small_prefix_lm(image=image, reading=ImageReadingConfig(layer=-2, cls=False)))
    fill_from_folders(model)
    images = text_batch().images
    hidden = theirs(model.normalise(images), output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(model.image_vectors(images).view_as(hidden), hidden, atol=1e-6, rtol=1e-5)
    assert model.reading.given.side == 2
    assert any("layers.1" in n for n in model.reading.unused)  # the last block is not read


def test_a_size_that_an_encoder_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="a size that ViTModel takes; got 4"):
        HFImageTowerConfig().build(4, 16)


def test_the_short_form_finds_each_kind(tmp_path: Path) -> None:
    save_encoder("vit", tmp_path / "vit", **SIZES)
    save_encoder("bert", tmp_path / "bert")
    both = override(TwoTowerConfig(), [f"image=hf:{tmp_path / 'vit'}", f"text=hf:{tmp_path / 'bert'}"])
    assert isinstance(both.image, HFImageTowerConfig)
    assert isinstance(both.text, HFTextTowerConfig)
    assert both.image.read_from == str(tmp_path / "vit")
