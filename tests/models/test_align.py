import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AlignConfig as TheirConfig
from transformers import AlignModel

from diptych.checkpoints.key_map import Rule, same, to_ours
from diptych.checkpoints.packaged import NORM, bert_block
from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.core.image_format import ImageFormat
from diptych.models.align import Align, AlignConfig
from diptych.models.capabilities import capabilities_of
from diptych.models.efficientnet import EfficientNetConfig
from diptych.models.sizes import align_base, align_l2
from diptych.models.text_transformer import TextTransformerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.distillation import scale_of
from tests.checkpoints.tiny import check_parity, pixels, randomise

STAGES = {"depths": (1, 2, 2), "kernels": (3, 3, 5), "strides": (1, 2, 2), "expansions": (1, 4, 6)}
SIDE, VOCAB = 33, 40


def model(**changes: Any) -> Align:
    image = EfficientNetConfig(
        **STAGES, widths=(16, 24, 32), stem_width=32, head_width=0, padding="even", projection="none"
    )
    config = AlignConfig(
        image_format=ImageFormat(resolution=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        context_length=12,
        embed_dim=32,
        image=image,
        text=TextTransformerConfig.bert(64, 2, 2),
    ).replace(**changes)
    return config.build(VOCAB)


def theirs() -> AlignModel:
    text = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "max_position_embeddings": 12,
    }
    vision = {
        "image_size": SIDE,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "kernel_sizes": STAGES["kernels"],
        "in_channels": (32, 16, 24),
        "out_channels": (16, 24, 32),
        "strides": STAGES["strides"],
        "num_block_repeats": STAGES["depths"],
        "expand_ratios": STAGES["expansions"],
        "hidden_dim": 64,
    }
    made = AlignModel(TheirConfig(text_config=text, vision_config=vision, projection_dim=32))
    randomise(made)
    with torch.no_grad():
        made.temperature.fill_(0.3)
    return made.eval()


def rules(ours: Align) -> list[Rule]:
    """Our names and those of transformers' ALIGN."""
    found = [
        Rule(("temperature",), "temperature"),
        Rule(("image_tower.stem.conv.weight",), "vision_model.embeddings.convolution.weight"),
        *same([("image_tower.stem.norm", "vision_model.embeddings.batchnorm")], NORM),
        Rule(("text_tower.token_embed.weight",), "text_model.embeddings.word_embeddings.weight"),
        Rule(("text_tower.position_embed",), "text_model.embeddings.position_embeddings.weight"),
        *same(
            [("text_tower.norm_pre", "text_model.embeddings.LayerNorm"), ("text_tower.projection", "text_projection")]
        ),
    ]
    for i, block in enumerate(ours.image_tower.blocks):
        mine, yours = f"image_tower.blocks.{i}", f"vision_model.encoder.blocks.{i}"
        convs = [
            ("expand", "expansion.expand_conv", "expansion.expand_bn"),
            ("depthwise", "depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
            ("project", "projection.project_conv", "projection.project_bn"),
        ]
        for name, conv, norm in convs if block.expand is not None else convs[1:]:
            found += same([(f"{mine}.{name}.conv", f"{yours}.{conv}")], ("weight",))
            found += same([(f"{mine}.{name}.norm", f"{yours}.{norm}")], NORM)
        found += same([(f"{mine}.squeeze.{n}", f"{yours}.squeeze_excite.{n}") for n in ("reduce", "expand")])
    for i in range(2):
        found += bert_block(f"text_tower.blocks.{i}", f"text_model.encoder.layer.{i}")
    return found


def test_it_equals_transformers_in_features_logits_loss_and_gradients() -> None:
    other, ours = theirs(), model()
    state = other.state_dict()
    kind = state.pop("text_model.embeddings.token_type_embeddings.weight")[0]
    state["text_model.embeddings.position_embeddings.weight"] = (
        state["text_model.embeddings.position_embeddings.weight"] + kind
    )
    shapes = {n: t.shape for n, t in ours.state_dict().items()}
    ours.load_state_dict(to_ours(rules(ours), state, shapes, r"^text_model\.pooler|position_ids$|token_type_ids$"))
    images = pixels(5, SIDE)
    tokens, lengths = torch.randint(1, VOCAB, (5, 9)), torch.tensor([9, 4, 6, 1, 7])
    out = other(
        pixel_values=images / 127.5 - 1,
        input_ids=tokens,
        attention_mask=torch.arange(9) < lengths[:, None],
        return_loss=True,
    )
    text, vision = other.text_model, other.vision_model

    def plain(gradient: Tensor) -> Tensor:
        return gradient

    # the paper adds the two directions, transformers and we take their mean: Adam's steps are the same
    check_parity(
        ours,
        (tokens, lengths),
        images,
        (out.image_embeds, out.text_embeds, out.logits_per_image),
        out.loss,
        {
            "temperature": (other.temperature, plain),
            "text_tower.projection.weight": (other.text_projection.weight, plain),
            "text_tower.norm_pre.weight": (text.embeddings.LayerNorm.weight, plain),
            "text_tower.position_embed": (text.embeddings.position_embeddings.weight, plain),
            "text_tower.blocks.1.mlp.fc_1.weight": (text.encoder.layer[1].intermediate.dense.weight, plain),
            "image_tower.stem.conv.weight": (vision.embeddings.convolution.weight, plain),
            "image_tower.blocks.2.depthwise.conv.weight": (
                vision.encoder.blocks[2].depthwise_conv.depthwise_conv.weight,
                plain,
            ),
            "image_tower.blocks.4.squeeze.expand.bias": (vision.encoder.blocks[4].squeeze_excite.expand.bias, plain),
        },
        ContrastiveConfig(label_smoothing=0.1, duplicates="ignore"),
    )


def test_the_temperature_itself_is_the_parameter() -> None:
    ours = model()
    assert ours.temperature.item() == 1.0
    assert ours.log_logit_scale.item() == 0.0
    names = set(ours.state_dict())
    assert "temperature" in names
    assert "log_logit_scale" not in names
    (3 * ours.log_logit_scale.exp()).backward()
    assert ours.temperature.grad is not None
    assert ours.temperature.grad.item() == -3.0
    assert model(init_logit_scale=math.log(10)).temperature.item() == pytest.approx(0.1)
    assert {"embed_image", "embed_text", "score"} <= set(capabilities_of(ours))


def test_the_temperature_is_held_above_zero() -> None:
    ours = model()
    for value, held in ((-0.5, 0.01), (0.001, 0.01), (0.02, 0.02), (3.0, 3.0)):
        ours.temperature.data.fill_(value)
        ours.after_step()
        assert ours.temperature.item() == pytest.approx(held)


def test_the_objective_and_a_student_read_its_scale(tmp_path: Any) -> None:
    ours = model(init_logit_scale=math.log(20)).train()
    objective = ContrastiveConfig(label_smoothing=0.1).build(ours)
    assert objective.logit_scale().item() == pytest.approx(20)
    batch = Batch(
        images=pixels(4, SIDE),
        tokens=torch.randint(1, VOCAB, (4, 5)),
        lengths=torch.tensor([5, 2, 3, 4]),
        text_ids=torch.arange(4),
    )
    objective(batch).total.backward()
    assert ours.temperature.grad is not None
    assert ours.temperature.grad.abs() > 0
    save_file({"temperature": ours.temperature.detach()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert scale_of(tmp_path) == pytest.approx(20)


def test_published_sizes() -> None:
    with torch.device("meta"):
        base, large = (config().build(30522) for config in (align_base, align_l2))
    # the public base model has 172 M parameters; of its text tower, ours lacks the unused pooler and most positions
    assert sum(p.numel() for p in base.parameters()) / 1e6 == pytest.approx(171.1, abs=0.5)
    assert large.image_tower.width == 1376
    assert sum(p.numel() for p in large.image_tower.parameters()) / 1e6 == pytest.approx(467, abs=5)


def test_settings_survive_json() -> None:
    config = model().config
    assert from_json(to_json(config)) == config
