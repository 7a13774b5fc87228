"""Tests against transformers' CLIPModel: parity from random weights, there and back, and our models in its hands."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.transformers_clip import write
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Tokenizer
from diptych.models.two_tower import TwoTower
from tests.checkpoints.tiny import (
    TEXTS,
    TOLERANCE,
    assert_equal_states,
    check_parity,
    clip_config,
    ours,
    pixels,
    randomise,
    tokenizer,
    trained,
)

transformers = pytest.importorskip("transformers")


def words() -> Tokenizer:
    """A tokenizer whose end token is its highest id, as CLIP's is."""
    return ended(tokenizer().vocab_size - 1)


def ended(end: int) -> Tokenizer:
    """A tokenizer whose end token has this id."""
    from diptych.checkpoints.tokenizer_export import swap_ids

    plain = tokenizer()
    return plain if plain.end_id == end else swap_ids(plain, plain.end_id, end)


def save_theirs(path: Path, eos: str = "right", act: str = "quick_gelu", **values: object) -> "transformers.CLIPModel":
    """A random CLIPModel with our tokenizer beside it. `eos` "legacy" is the old config with eos_token_id 2."""
    from diptych.checkpoints.tokenizer_export import save_for_others

    vocabulary = words()
    block = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act, **values}
    config = transformers.CLIPConfig(
        text_config={
            **block,
            "intermediate_size": 160,
            "vocab_size": vocabulary.vocab_size,
            "max_position_embeddings": 16,
            "eos_token_id": 2 if eos == "legacy" else vocabulary.end_id,
        },
        vision_config={**block, "intermediate_size": 256, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    model = transformers.CLIPModel(config).eval()
    randomise(model)
    model.save_pretrained(path)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    save_for_others(path, vocabulary)
    return model


@pytest.mark.parametrize(
    "eos,act,eps", [("right", "quick_gelu", 1e-5), ("legacy", "gelu", 1e-3), ("right", "gelu_pytorch_tanh", 1e-5)]
)
def test_features_logits_loss_and_gradients_equal_theirs(tmp_path: Path, eos: str, act: str, eps: float) -> None:
    theirs = save_theirs(tmp_path, eos, act, layer_norm_eps=eps)
    model = ours("transformers", tmp_path)
    images = pixels(4, 32)
    tokens, lengths = words().batch(TEXTS)
    out = theirs(input_ids=tokens, pixel_values=model.normalise(images), return_loss=True)
    vision, text = theirs.vision_model, theirs.text_model
    check_parity(
        model,
        (tokens, lengths),
        images,
        (out.image_embeds, out.text_embeds, out.logits_per_image),
        out.loss,
        {
            "log_logit_scale": (theirs.logit_scale, lambda g: g),
            "image_tower.cls_token": (vision.embeddings.class_embedding, lambda g: g),
            "image_tower.patch_embed.weight": (vision.embeddings.patch_embedding.weight, lambda g: g),
            "text_tower.token_embed.weight": (text.embeddings.token_embedding.weight, lambda g: g),
            "text_tower.blocks.0.attention.k_proj.weight": (
                text.encoder.layers[0].self_attn.k_proj.weight,
                lambda g: g,
            ),
        },
    )


def test_padding_and_cutting_to_the_longest_do_not_change_their_text_features(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = ours("transformers", tmp_path)
    tokens, lengths = words().batch(TEXTS)
    wide = torch.nn.functional.pad(tokens, (0, 16 - tokens.shape[1]), value=words().pad_id)
    with torch.no_grad():
        expected = theirs.get_text_features(input_ids=wide).pooler_output
        torch.testing.assert_close(model.text_tower(tokens, lengths), expected, **TOLERANCE)


def test_there_and_back_is_equal_to_the_byte(tmp_path: Path) -> None:
    save_theirs(tmp_path / "theirs")
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    assert_equal_states(
        load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    )
    configs = [transformers.CLIPConfig.from_pretrained(tmp_path / n).to_dict() for n in ("theirs", "back")]
    for part in ("text_config", "vision_config"):
        for key in ("hidden_size", "intermediate_size", "hidden_act", "layer_norm_eps", "num_attention_heads"):
            assert configs[0][part][key] == configs[1][part][key]
    assert configs[0]["text_config"]["eos_token_id"] == configs[1]["text_config"]["eos_token_id"]
    assert read("transformers", tmp_path / "back").config == read("transformers", tmp_path / "theirs").config


@pytest.mark.parametrize("end", [1, 2, 299])
def test_a_model_of_ours_gives_the_same_embeddings_in_transformers(tmp_path: Path, end: int) -> None:
    """With our tokenizer, also where its end token has id 2, which transformers misreads."""
    mine = trained(clip_config(), ended(end))
    assert mine.tokenizer.end_id == end
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    convert_to("transformers", tmp_path / "run", tmp_path / "out")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "out").eval()
    vocabulary = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*TEXTS, "  Spaces\tand  CAPITALS ", "é & ü!", "", "one two " * 20]
    inputs = vocabulary(texts, padding=True, truncation=True, return_tensors="pt")
    tokens, lengths = mine.tokenizer.batch(texts)
    assert inputs["attention_mask"].sum(1).tolist() == lengths.tolist()
    if end != 2:
        for row, length, ids in zip(tokens, lengths, inputs["input_ids"], strict=True):
            assert ids[:length].tolist() == row[:length].tolist()
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
    assert back.model.config == mine.model.config
    assert back.tokenizer.batch(texts)[0].tolist() == tokens.tolist()


def test_transformers_misreads_an_end_token_with_id_2_which_is_why_it_is_moved(tmp_path: Path) -> None:
    """A known bug of the oracle: eos_token_id 2 makes it pool at the highest id of the row."""
    mine = trained(clip_config(), ended(2))
    write(mine, tmp_path / "out")
    config = transformers.CLIPConfig.from_pretrained(tmp_path / "out")
    assert config.text_config.eos_token_id == mine.tokenizer.vocab_size - 1
    naive = transformers.CLIPModel.from_pretrained(tmp_path / "out").eval()
    naive.text_model.embeddings.token_embedding.weight.data = mine.model.text_tower.token_embed.weight.data
    naive.text_model.eos_token_id = 2
    tokens, lengths = mine.tokenizer.batch(TEXTS)
    with torch.no_grad():
        text = naive.get_text_features(input_ids=tokens).pooler_output
        expected = mine.model.text_tower(tokens, lengths)
    assert (text - expected).abs().max() > 0.1


def test_its_processor_prepares_the_pixels_that_our_format_says(tmp_path: Path) -> None:
    for resize in ("crop", "squash"):
        config = clip_config(image_format=ImageFormat(resolution=32, resize=resize, mean=(0.1, 0.2, 0.3)))
        write(trained(config), tmp_path / resize)
        processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path / resize)
        image = torch.randint(0, 256, (3, 48, 40), dtype=torch.uint8)
        prepared = processor(image.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
        mine = trained(config)
        expected: Tensor = mine.model.normalise(mine.pixels(image)[None])
        assert prepared.shape == expected.shape
        assert (prepared - expected).abs().mean() < 0.02  # PIL rounds between its two passes; we do not
        assert read("transformers", tmp_path / resize).config.image_format == config.image_format


def test_old_folders_are_read_pickled_weights_and_defaults_included(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        {"text_model.embeddings.position_ids": torch.arange(16)[None], **theirs.state_dict()},
        tmp_path / "pytorch_model.bin",
    )
    config = json.loads((tmp_path / "config.json").read_text())
    for part in ("text_config", "vision_config"):  # what equals the class's default is left out in old files
        config[part] = {k: v for k, v in config[part].items() if k not in ("hidden_act", "layer_norm_eps")}
    config["text_config_dict"], config["text_config"] = config["text_config"], {"hidden_size": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32, "resample": 3}))
    model = ours("transformers", tmp_path)
    assert isinstance(model, TwoTower)
    assert model.config.image.activation == model.config.text.activation == "quick_gelu"
    assert torch.equal(model.text_tower.position_embed, theirs.text_model.embeddings.position_embedding.weight)


def test_what_clip_has_no_place_for_is_said(tmp_path: Path) -> None:
    from diptych.models.modified_resnet import ModifiedResNetConfig

    config = clip_config()
    for changed, message in (
        (config.replace(image=ModifiedResNetConfig(stem_width=4, depths=(1, 1, 1, 1))), "got ModifiedResNet"),
        (config.replace(image=config.image.replace(pooling="mean")), "pooling must be 'cls', got 'mean'"),
        (config.replace(text=config.text.replace(attention="bidirectional")), "attention must be 'causal'"),
        (config.replace(init_logit_bias=-10.0), "init_logit_bias must be None"),
        (config.replace(image_format=ImageFormat(resolution=32, resize="pad")), "got 'pad'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write(trained(changed), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_folders_that_would_be_misread_are_refused(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    good = json.loads((tmp_path / "config.json").read_text())

    def refuse(message: str, **text: object) -> None:
        config = good | {"text_config": {**good["text_config"], **text}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            read("transformers", tmp_path)

    refuse("must end texts with the token that the model pools at, 7", eos_token_id=7)
    refuse("hidden_act 'mish'", hidden_act="mish")
    refuse(r"Not known \(16\): text_model\.encoder\.layers\.1", num_hidden_layers=1)
    refuse(r"text_tower\.position_embed: file \(16, 64\), model \(12, 64\)", max_position_embeddings=12)
    (tmp_path / "config.json").write_text(json.dumps(good))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 40}, "crop_size": 32}))
    with pytest.raises(CheckpointError, match="resized to"):
        read("transformers", tmp_path)
