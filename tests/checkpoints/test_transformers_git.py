"""Tests against transformers' GitForCausalLM: parity from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.transformers_git import write
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.linear import LinearConfig
from diptych.models.generate import Generation
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.checkpoints.tiny import assert_equal_states, pixels, randomise, tokenizer, trained
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of

transformers = pytest.importorskip("transformers")

PATCHES = 17


def save_theirs(path: Path, **values: Any) -> Any:
    from diptych.checkpoints.tokenizer_export import save_for_others

    block = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.GitConfig(
        **{
            **block,
            "hidden_size": 48,
            "vision_config": {**block, "image_size": 32, "patch_size": 8},
            "vocab_size": tokenizer().vocab_size,
            "max_position_embeddings": 40,
            **values,
        }
    )
    model = transformers.GitForCausalLM(config).eval()
    randomise(model)
    model.tie_weights()
    model.save_pretrained(path)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    save_for_others(path, tokenizer(40 - PATCHES))
    return model


@pytest.mark.parametrize("values", [{}, {"tie_word_embeddings": True, "hidden_act": "relu", "layer_norm_eps": 1e-3}])
def test_logits_loss_and_gradients_equal_theirs(tmp_path: Path, values: dict[str, Any]) -> None:
    theirs = save_theirs(tmp_path, **values)
    model = our_writer(tmp_path)
    images = pixels(3, 32)
    tokens, lengths = torch.randint(3, 300, (3, 9)), torch.tensor([9, 4, 7])
    real = torch.arange(9) < lengths[:, None]
    out = theirs(
        input_ids=tokens,
        pixel_values=model.normalise(images),
        attention_mask=real.long(),
        labels=tokens.masked_fill(~real, -100),
    )
    batch = Batch(images=images, image_record=torch.arange(3), tokens=tokens, lengths=lengths)
    git = theirs.git
    vision = git.image_encoder.vision_model
    gradients = {
        "image_tower.cls_token": vision.embeddings.class_embedding,
        "image_tower.blocks.1.mlp.fc_2.weight": vision.encoder.layers[1].mlp.fc2.weight,
        "connector.proj.weight": git.visual_projection.visual_projection[0].weight,
        "connector.norm.bias": git.visual_projection.visual_projection[1].bias,
        "language.position_embed": git.embeddings.position_embeddings.weight,
        "language.norm_embed.weight": git.embeddings.LayerNorm.weight,
        "language.blocks.0.attention.q_proj.weight": git.encoder.layer[0].attention.self.query.weight,
        "language.head_bias": theirs.output.bias,
    }
    rows = rows_of(out.logits, lambda i: list(range(PATCHES, PATCHES + int(lengths[i]) - 1)))
    check_writer(model, batch, rows, out.loss, gradients)


def test_what_we_write_is_what_they_write(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model, images = our_writer(tmp_path), pixels(1, 32)
    said = model.generate_text(images, None, Generation(max_tokens=6))[0]
    out = theirs.generate(
        input_ids=torch.tensor([[2]]),
        pixel_values=model.normalise(images),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=1,
    )
    assert said == [i for i in out[0, 1:].tolist() if i != 1]


@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_is_equal_to_the_byte(tmp_path: Path, tied: bool) -> None:
    first = save_theirs(tmp_path / "theirs", tie_word_embeddings=tied)
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.GitForCausalLM.from_pretrained(tmp_path / "back")
    assert_equal_states(back.state_dict(), first.state_dict())
    assert read("transformers", tmp_path / "back").config == read("transformers", tmp_path / "theirs").config


def git_config(**values: Any) -> PrefixLMConfig:
    language = CausalTransformerConfig(
        width=32,
        depth=1,
        heads=2,
        positions="learned",
        counted="text",
        norm_position="post",
        norm_embed=True,
        norm_final=False,
        head_bias=True,
    )
    plain = {
        "image": VisionTransformerConfig(width=32, depth=1, heads=2, patch_size=8, projection="none"),
        "embed_dim": 32,
        "connector": LinearConfig(norm=True),
        "language": language,
        "seen": "prefix",
        "context_length": 16,
        "image_format": ImageFormat(resolution=32),
    }
    return PrefixLMConfig(**plain | values)


def test_a_model_of_ours_says_the_same_in_transformers(tmp_path: Path) -> None:
    mine = trained(git_config())
    write(mine, tmp_path / "out")
    theirs = transformers.GitForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens, images = torch.randint(3, 300, (1, 6)), pixels(1, 32)
    batch = Batch(images=images, image_record=torch.tensor([0]), tokens=tokens, lengths=torch.tensor([6]))
    with torch.no_grad():
        out = theirs(input_ids=tokens, pixel_values=mine.model.normalise(images)).logits[0, PATCHES:-1]
        torch.testing.assert_close(mine.model.logits(mine.model.predict(batch).hidden), out, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"seen": "causal"}, "seen must be 'prefix'"),
        ({"connector": LinearConfig()}, "norm must be True"),
        ({"language": git_config().language.replace(head_bias=False)}, "head_bias must be True"),
    ],
)
def test_what_git_has_no_place_for_is_said(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write(trained(git_config(**values)), tmp_path / "out")


def test_frames_of_a_video_are_refused(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_image_with_embedding": 6}))
    with pytest.raises(CheckpointError, match="frames of a video"):
        read("transformers", tmp_path)
