"""Tests against transformers' SiglipModel: parity from random weights, there and back, and our models in its hands."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.transformers_siglip import write
from diptych.core.errors import CheckpointError
from diptych.data.tokenize import Tokenizer
from diptych.objectives.sigmoid import SigmoidConfig
from tests.checkpoints.tiny import (
    TEXTS,
    TOLERANCE,
    assert_equal_states,
    check_parity,
    ours,
    pixels,
    randomise,
    siglip_config,
    tokenizer,
    trained,
)

transformers = pytest.importorskip("transformers")


def words() -> Tokenizer:
    """Always as wide as the context, as SigLIP was trained."""
    return tokenizer().replaced(pad_to="context")


def save_theirs(path: Path) -> "transformers.SiglipModel":
    from diptych.checkpoints.tokenizer_export import save_for_others

    block = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 172}
    config = transformers.SiglipConfig(
        text_config={**block, "vocab_size": words().vocab_size, "max_position_embeddings": 16, "pad_token_id": 0},
        vision_config={**block, "image_size": 32, "patch_size": 8},
    )
    model = transformers.SiglipModel(config).eval()
    randomise(model)
    model.save_pretrained(path)
    transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    save_for_others(path, words(), ids_only=True)
    return model


def test_features_logits_loss_and_gradients_equal_theirs(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = ours("transformers", tmp_path)
    images = pixels(4, 32)
    tokens, lengths = words().batch(TEXTS)
    assert tokens.shape[1] == 16
    out = theirs(input_ids=tokens, pixel_values=model.normalise(images), return_loss=True)
    head = theirs.vision_model.head
    check_parity(
        model,
        (tokens, lengths),
        images,
        (out.image_embeds, out.text_embeds, out.logits_per_image),
        out.loss,
        {
            "log_logit_scale": (theirs.logit_scale, lambda g: g[0]),
            "logit_bias": (theirs.logit_bias, lambda g: g[0]),
            "image_tower.map_pool.probe": (head.probe, lambda g: g[0]),
            "image_tower.map_pool.attention.k_proj.weight": (head.attention.in_proj_weight, lambda g: g[64:128]),
            "text_tower.token_embed.weight": (theirs.text_model.embeddings.token_embedding.weight, lambda g: g),
        },
        objective=SigmoidConfig(duplicates="ignore"),
    )


def test_rows_cut_to_the_longest_give_the_same_features(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = ours("transformers", tmp_path)
    tokens, lengths = words().batch(TEXTS)
    cut = tokens[:, : int(lengths.max())]
    with torch.no_grad():
        expected = theirs.get_text_features(input_ids=tokens).pooler_output
        torch.testing.assert_close(model.text_tower(cut, lengths), expected, **TOLERANCE)


def test_there_and_back_is_equal_to_the_byte(tmp_path: Path) -> None:
    save_theirs(tmp_path / "theirs")
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    assert_equal_states(
        load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    )
    assert read("transformers", tmp_path / "back").config == read("transformers", tmp_path / "theirs").config
    theirs, back = (transformers.SiglipConfig.from_pretrained(tmp_path / n) for n in ("theirs", "back"))
    assert theirs.text_config.intermediate_size == back.text_config.intermediate_size == 172


def test_a_model_of_ours_gives_the_same_embeddings_in_transformers(tmp_path: Path) -> None:
    mine = trained(siglip_config(), words())
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    convert_to("transformers", tmp_path / "run", tmp_path / "out")
    theirs = transformers.SiglipModel.from_pretrained(tmp_path / "out").eval()
    vocabulary = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*TEXTS, " Spaces\tand  CAPITALS ", "", "one two " * 20]
    inputs = vocabulary(texts, padding="max_length", truncation=True, return_tensors="pt")
    assert set(inputs) == {"input_ids"}  # a mask would change what it computes
    assert inputs["input_ids"].tolist() == mine.tokenizer.batch(texts)[0].tolist()
    images = pixels(3, 32)
    with torch.no_grad():
        text = theirs.get_text_features(**inputs).pooler_output
        image = theirs.get_image_features(pixel_values=mine.model.normalise(images)).pooler_output
    torch.testing.assert_close(torch.nn.functional.normalize(text, dim=-1), mine.embed_text(texts), **TOLERANCE)
    torch.testing.assert_close(
        torch.nn.functional.normalize(image, dim=-1), mine.model.embed_image(images), **TOLERANCE
    )
    back = load(convert("transformers", tmp_path / "out", tmp_path / "back"))
    assert_equal_states(back.model.state_dict(), mine.model.state_dict())
    assert torch.equal(back.embed_text(texts), mine.embed_text(texts))


def test_what_siglip_has_no_place_for_is_said(tmp_path: Path) -> None:
    config = siglip_config()
    for changed, message in (
        (config.replace(init_logit_bias=None), "init_logit_bias must be -10.0"),
        (config.replace(text=config.text.replace(pooling="mean")), "pooling must be 'last'"),
        (config.replace(image=config.image.replace(patch_bias=False)), "patch_bias must be True"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write(trained(changed), tmp_path / "out")
        assert not (tmp_path / "out").exists()
