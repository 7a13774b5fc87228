"""Idefics against transformers' IdeficsForVisionText2Text: the whole system from random weights, there and back.

Everything of it can be expressed: the ReLU in the resampler, gates by vector, norms of queries and keys, the image
tower's last layer without its norm, cross-attention before the first of every n blocks, vocabularies in two matrices.
Not so a model without a resampler, which is refused. Their image mask is made here from our places of images, as their
processor makes it from the tokens.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.transformers_idefics import write
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.flamingo import FlamingoConfig
from diptych.models.generate import Generation
from diptych.models.image_reading import ImageReadingConfig
from tests.checkpoints.tiny import TOLERANCE, pixels, randomise, tokenizer, trained
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of
from tests.reference.media import seen

transformers = pytest.importorskip("transformers")

KINDS: dict[str, dict[str, Any]] = {
    "9b": {"alpha_type": "float", "cross_layer_interval": 2},
    "80b": {"alpha_type": "vector", "qk_layer_norms": True, "qk_layer_norms_perceiver": True},
}
LENGTHS, PLACES = [7, 9, 4], [(0, 0), (0, 3), (1, 2), (1, 5), (1, 6)]


def save_theirs(path: Path, qk_layer_norms_perceiver: bool = False, **values: Any) -> Any:
    """A random Idefics with some tokens added to its vocabulary."""
    words = tokenizer()
    config = transformers.IdeficsConfig(
        vocab_size=words.vocab_size,
        additional_vocab_size=3,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        use_resampler=True,
        max_position_embeddings=16,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        vision_config={
            "embed_dim": 24,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 3,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "qk_layer_norms_perceiver": qk_layer_norms_perceiver,
        },
        freeze_text_layers=False,
        freeze_vision_layers=False,
        **values,
    )
    model = transformers.IdeficsForVisionText2Text(config).eval()
    randomise(model)
    for name, p in model.named_parameters():
        if "alpha_" in name:
            p.data.add_(0.7)
    model.requires_grad_(True)
    model.save_pretrained(path)
    return model


def asked(model: Any) -> tuple[Batch, Tensor, dict[str, Any]]:
    """A batch of pages, their loss mask as labels, and the same for their model."""
    text = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor(LENGTHS)
    batch = Batch(
        images=pixels(len(PLACES), 32),
        image_record=torch.tensor([r for r, _ in PLACES]),
        image_position=torch.tensor([p for _, p in PLACES]),
        tokens=text,
        lengths=lengths,
    )
    beside = torch.zeros(3, 3, 3, 32, 32)
    slot = [sum(r == owner for r, _ in PLACES[:i]) for i, (owner, _) in enumerate(PLACES)]
    for (owner, _), at, image in zip(PLACES, slot, model.normalise(batch.images), strict=True):
        beside[owner, at] = image
    mask = torch.zeros(3, 9, 3, dtype=torch.int64)
    for record, row in enumerate(seen(LENGTHS, PLACES)):
        for place, image in enumerate(row):
            if image is not None:
                mask[record, place, slot[image]] = 1
    real = torch.arange(9) < lengths[:, None]
    labels = torch.where(real, text, -100)
    return batch, labels, {"pixel_values": beside, "image_attention_mask": mask, "attention_mask": real.long()}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_loss_and_gradients_equal_theirs(tmp_path: Path, kind: str) -> None:
    theirs = save_theirs(tmp_path, **KINDS[kind])
    model = our_writer(tmp_path)
    batch, labels, given = asked(model)
    out = theirs(input_ids=batch.tokens, labels=None, **given)
    wanted = rows_of(out.logits, lambda i: list(range(LENGTHS[i] - 1)))
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    inside = theirs.model
    gate, block = inside.gated_cross_attn_layers[0], inside.perceiver_resampler.blocks[1]
    gradients = {
        "image_tower.cls_token": inside.vision_model.embeddings.class_embedding,
        "image_tower.blocks.1.mlp.fc_1.weight": inside.vision_model.encoder.layers[1].mlp.fc1.weight,
        "connector.resampler.latents": inside.perceiver_resampler.latents,
        "connector.resampler.blocks.1.attention.k_proj.weight": block[0].k_proj.weight,
        "connector.resampler.blocks.1.mlp.fc_2.weight": block[1].c_proj.weight,
        "gates.0.attention.v_proj.weight": gate.cross_attn.v_proj.weight,
        "gates.0.mlp.fc_gate.weight": gate.mlp.gate_proj.weight,
        "language.blocks.1.attention.q_proj.weight": inside.layers[1].self_attn.q_proj.weight,
    }
    check_writer(model, batch, wanted, loss, gradients)
    torch.testing.assert_close(
        dict(model.named_parameters())["gates.0.gate"].grad, gate.alpha_cross_attn.grad.squeeze(), rtol=1e-3, atol=1e-5
    )


def test_what_we_write_is_what_they_write(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = our_writer(tmp_path)
    images, start = pixels(1, 32), 2
    said = model.generate_text(images, None, Generation(max_tokens=5))[0]
    ids = [start]
    for _ in range(5):  # their own cache of one image's mask is not under test
        mask = torch.ones(1, len(ids), 1, dtype=torch.int64)
        row = torch.tensor([ids])
        with torch.no_grad():
            out = theirs(input_ids=row, pixel_values=model.normalise(images)[None], image_attention_mask=mask)
        ids.append(int(out.logits[0, -1].argmax()))
        if ids[-1] == 1:
            break
    assert said == [i for i in ids[1:] if i != 1]


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_equal_and_says_the_same_there(tmp_path: Path, kind: str) -> None:
    first = save_theirs(tmp_path / "theirs", **KINDS[kind])
    found = read("transformers", tmp_path / "theirs")
    words = tokenizer()
    model = our_writer(tmp_path / "theirs")
    save_pretrained(tmp_path / "ours", model, words)
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.IdeficsForVisionText2Text.from_pretrained(tmp_path / "back").eval()
    batch, _, given = asked(model)
    with torch.no_grad():
        mine, before = (m(input_ids=batch.tokens, **given).logits for m in (back, first))
    real = given["attention_mask"].bool()
    torch.testing.assert_close(mine[real], before[real], **TOLERANCE)  # one matrix multiplies where two did
    processor = transformers.IdeficsImageProcessorPil.from_pretrained(tmp_path / "back")
    seen_there = processor([batch.images[0].permute(1, 2, 0).numpy()])[0]
    torch.testing.assert_close(torch.as_tensor(seen_there), model.normalise(batch.images[:1])[0])
    again = load(convert("transformers", tmp_path / "back", tmp_path / "again"))
    assert again.model.config == found.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"use_resampler": False}, "no resampler"),
        ({"alpha_type": "matrix"}, "gates of type 'matrix'"),
        ({"hidden_act": "gelu"}, "another activation than silu"),
    ],
)
def test_what_we_have_no_place_for_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=message):
        read("transformers", tmp_path)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"reading": ImageReadingConfig()}, "norm must be False"),
        ({"language": CausalTransformerConfig(width=32, depth=2, heads=2)}, "norm must be 'rms'"),
        ({"cross_at": "last", "cross_every": 2}, "cross_at 'first'"),
    ],
)
def test_what_idefics_has_no_place_for_is_said(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path / "theirs")
    config = read("transformers", tmp_path / "theirs").config
    assert isinstance(config, FlamingoConfig)
    with pytest.raises(CheckpointError, match=message):
        write(trained(config.replace(**values)), tmp_path / "out")
