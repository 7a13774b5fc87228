"""Tests against torchscale's BEiT-3: parity from random weights, with images, texts and both; there and back.

torchscale asks for a fairscale and a timm of its own, so it is installed by itself (``pip install --no-deps``); of
fairscale it needs two names, which do nothing here.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych.checkpoints import torchscale_beit3
from diptych.checkpoints.convert import assemble, convert_to, read
from diptych.checkpoints.key_map import to_ours, to_theirs
from diptych.checkpoints.native import save_pretrained
from diptych.checkpoints.torchscale_beit3 import begins, config_of, recognises, rules_of
from diptych.checkpoints.weights import read_weights
from diptych.core.errors import CheckpointError
from diptych.models.beit3 import BEiT3
from diptych.models.pretrained import Pretrained
from tests.checkpoints.tiny import TOLERANCE, pixels, randomise, tokenizer
from tests.models.small_beit3 import PAPER, small_beit3

ROWS, ROOM = 60, 20


def _fairscale() -> None:
    nn = ModuleType("fairscale.nn")
    nn.checkpoint_wrapper = nn.wrap = lambda module, *_, **__: module  # type: ignore[attr-defined]
    whole = ModuleType("fairscale")
    whole.nn = nn  # type: ignore[attr-defined]
    sys.modules.setdefault("fairscale", whole)
    sys.modules.setdefault("fairscale.nn", nn)


_fairscale()
pytest.importorskip("torchscale")


def their_model(width: int = 32, heads: int = 2, rows: int = ROWS, room: int = ROOM) -> Any:
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3 as Theirs

    settings = EncoderConfig(
        img_size=16, patch_size=4, vocab_size=rows, multiway=True, normalize_output=True, no_output_layer=True,
        encoder_embed_dim=width, encoder_attention_heads=heads, encoder_ffn_embed_dim=2 * width, encoder_layers=2,
        max_source_positions=room,
    )  # fmt: skip
    model = Theirs(settings).eval()
    randomise(model)
    return model


def named(theirs: Any) -> dict[str, Tensor]:
    return {f"beit3.{n}": t for n, t in theirs.state_dict().items()}


def both() -> tuple[Any, BEiT3]:
    """Theirs and ours with the same random weights."""
    theirs = their_model()
    config = config_of(named(theirs), heads=2)
    model = config.build(ROWS - 1)
    fresh = begins(config, ROWS - 1)
    shapes = {n: t.shape for n, t in model.state_dict().items() if n not in fresh}
    model.load_state_dict(to_ours(rules_of(config, False), named(theirs), shapes) | fresh)
    return theirs, model.eval()


@pytest.mark.parametrize("given", ["image", "text", "pair", "pair, partly hidden"])
def test_states_and_gradients_equal_theirs(given: str) -> None:
    theirs, model = both()
    images, lengths = pixels(3, 16), torch.tensor([6, 3, 8])
    tokens = torch.randint(1, ROWS, (3, 8), generator=torch.Generator().manual_seed(2))
    padded = torch.arange(8) >= lengths[:, None]
    masked = torch.rand(3, 16, generator=torch.Generator().manual_seed(3)) < 0.4 if "hidden" in given else None
    image = None if given == "text" else images
    text = None if given == "image" else tokens
    out = theirs(
        textual_tokens=text,
        visual_tokens=None if image is None else model.normalise(image),
        text_padding_position=None if text is None else padded,
        vision_masked_position=masked,
    )
    split = out["multiway_split_position"]
    expected, p = out["encoder_out"], {-1: 17, 0: 0}.get(split, split)
    found = model.states(image, text, None if text is None else lengths, masked)
    g = torch.Generator().manual_seed(5)
    mine, yours = torch.zeros(()), torch.zeros(())
    for states, other, real in (
        (found.image, expected[:, :p], torch.ones(3, 17, dtype=torch.bool)),
        (found.text, expected[:, p:], ~padded),
    ):
        if states is not None:
            torch.testing.assert_close(states[real], other[real], **TOLERANCE)
            weights = torch.randn(states[real].shape, generator=g)
            mine, yours = mine + (weights * states[real]).sum(), yours + (weights * other[real]).sum()
    mine.backward()
    yours.backward()
    layer, kind, letter = theirs.encoder.layers[0], *(("text", "B") if given == "text" else ("image", "A"))
    gradients = {
        f"blocks.0.attends.{kind}.attention.v_proj.weight": getattr(layer.self_attn.v_proj, letter).weight,
        f"blocks.0.attends.{kind}.attention.inner_norm.weight": getattr(layer.self_attn.inner_attn_ln, letter).weight,
        f"blocks.0.widens.{kind}.mlp.fc_2.weight": getattr(layer.ffn, letter).fc2.weight,
        f"norms.{kind}.bias": getattr(theirs.encoder.layer_norm, letter).bias,
    }
    if text is not None:
        gradients["text_embed.token_embed.weight"] = theirs.text_embed.weight
        gradients["text_embed.position_embed"] = theirs.encoder.embed_positions.B.weight
    if image is not None:
        gradients["image_embed.cls_token"] = theirs.vision_embed.cls_token
        gradients["image_embed.position_embed"] = theirs.encoder.embed_positions.A.weight
    if masked is not None:
        gradients["image_embed.mask_token"] = theirs.vision_embed.mask_token
    parameters = dict(model.named_parameters())
    for name, parameter in gradients.items():
        grad, other = parameters[name].grad, parameter.grad.reshape(parameters[name].shape)
        scale = float(other.abs().max())
        assert scale > 1e-6, f"{name} must have a gradient to compare"
        torch.testing.assert_close(grad, other, rtol=1e-3, atol=1e-5 * scale + 1e-6, msg=name)


def their_file(path: Path, **heads: Tensor) -> dict[str, Tensor]:
    """A file of theirs as it is published, with a head or none."""
    state = named(their_model(width=64, heads=1)) | heads
    torch.save({"model": state}, path)
    return state


def head(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


RETRIEVAL = {"vision_head.weight": head(64, 64), "language_head.weight": 2 * head(64, 64), "logit_scale": head()}


@pytest.mark.parametrize("heads", [{}, RETRIEVAL], ids=["pretrained", "retrieval"])
def test_there_and_back_is_equal_to_the_bit(tmp_path: Path, heads: dict[str, Tensor]) -> None:
    before = their_file(tmp_path / "theirs.pth", **heads)
    assert recognises(tmp_path / "theirs.pth")
    found = read("torchscale", tmp_path / "theirs.pth")
    words = tokenizer(ROOM - 2)
    with pytest.raises(CheckpointError, match="at most 59 tokens"):
        assemble(found, words)
    model = torchscale_beit3.config_of(before).build(found.vocab_size)
    model.load_state_dict(found.state)
    torchscale_beit3.write(Pretrained(model, words), tmp_path / "back.pth")
    after = read_weights(tmp_path / "back.pth")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_finetuned_vectors_are_theirs(tmp_path: Path) -> None:
    theirs = their_model(width=64, heads=1)
    torch.save({"model": named(theirs) | RETRIEVAL}, tmp_path / "retrieval.pth")
    found = read("torchscale", tmp_path / "retrieval.pth")
    model = found.config.build(found.vocab_size).eval()
    model.load_state_dict(found.state)
    images, tokens, lengths = pixels(2, 16), torch.randint(1, ROWS, (2, 8)), torch.tensor([8, 5])
    x = theirs(visual_tokens=model.normalise(images))["encoder_out"][:, 0]
    image = normalize(x @ RETRIEVAL["vision_head.weight"].T, dim=-1)
    padded = torch.arange(8) >= lengths[:, None]
    x = theirs(textual_tokens=tokens, text_padding_position=padded)["encoder_out"][:, 0]
    text = normalize(x @ RETRIEVAL["language_head.weight"].T, dim=-1)
    torch.testing.assert_close(model.encode_image(images), image, **TOLERANCE)
    torch.testing.assert_close(model.encode_text(tokens, lengths), text, **TOLERANCE)
    torch.testing.assert_close(model.score(images, tokens, lengths), image @ text.T, **TOLERANCE)


def test_a_captioning_head_foresees_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchscale_beit3, "PUBLISHED_ROWS", ROWS)
    monkeypatch.setattr(torchscale_beit3, "PUBLISHED_MASK", 57)
    before = their_file(tmp_path / "x.pth", **{"mlm_head.weight": head(ROWS, 64), "mlm_head.bias": head(ROWS)})
    found = read("torchscale", tmp_path / "x.pth")
    assert found.vocab_size == ROWS
    assert torch.equal(found.state["token_head.weight"], before["mlm_head.weight"])
    model = found.config.build(ROWS)
    assert model.mask_id == 57
    model.load_state_dict(found.state)
    torchscale_beit3.write(Pretrained(model, tokenizer(ROOM - 2)), tmp_path / "back.pth")
    assert read_weights(tmp_path / "back.pth").keys() == before.keys()


def test_what_pretraining_needs_stays_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tokenizer(10)
    config = small_beit3(position_offset=2, context_length=10, tied=True, codec=None)
    config = config.replace(blocks=config.blocks.replace(width=64, heads=1), embed_dim=64)
    model = config.build(words.vocab_size)
    randomise(model)
    save_pretrained(tmp_path / "run", model, words)
    convert_to("torchscale", tmp_path / "run", tmp_path / "out.pth")
    assert "token_bias" in capsys.readouterr().err
    back = read("torchscale", tmp_path / "out.pth")
    assert back.vocab_size == words.vocab_size
    kept = {n: t for n, t in model.state_dict().items() if n != "token_bias"}
    assert all(torch.equal(back.state[n], t) for n, t in kept.items())
    assert_like = to_theirs(rules_of(config, True), kept)
    assert all(torch.equal(t, assert_like[n]) for n, t in read_weights(tmp_path / "out.pth").items())


def test_what_has_no_place_is_refused(tmp_path: Path) -> None:
    words = tokenizer(12)
    for config, message in (
        (small_beit3(blocks=PAPER, position_offset=2), "attention_experts must be 'separate', got 'shared'"),
        (small_beit3(), "position_offset must be 2, got 0"),
    ):
        with pytest.raises(CheckpointError, match=message):
            torchscale_beit3.write(Pretrained(config.build(words.vocab_size), words), tmp_path / "out.pth")
    their_file(tmp_path / "vqa.pth", **{"pooler.dense.weight": head(64, 64)})
    with pytest.raises(CheckpointError, match=r"Not known \(1\): pooler.dense.weight"):
        read("torchscale", tmp_path / "vqa.pth")
    their_file(tmp_path / "caption.pth", **{"mlm_head.weight": head(ROWS, 64), "mlm_head.bias": head(ROWS)})
    with pytest.raises(CheckpointError, match="a captioning head over 60 tokens"):
        read("torchscale", tmp_path / "caption.pth")
    torch.save({"model": named(their_model())}, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match="multiples of 64 only"):
        read("torchscale", tmp_path / "narrow.pth")
    (tmp_path / "other.pth").write_bytes(b"x")
    assert not recognises(tmp_path / "other.pth")
