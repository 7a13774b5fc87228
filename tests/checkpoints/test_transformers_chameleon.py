"""Tests against transformers' Chameleon: parity from random weights, there and back, and what theirs gets wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.checkpoints.convert import assemble, convert, convert_to, read
from diptych.checkpoints.native import save_pretrained
from diptych.checkpoints.transformers_chameleon import MARKS, code_name
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.chameleon import Chameleon
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from diptych.objectives.chameleon import MixedModalConfig
from tests.checkpoints.tiny import TOLERANCE, assert_equal_states, pixels, randomise, tokenizer, trained
from tests.models.test_chameleon import small_chameleon

transformers = pytest.importorskip("transformers")

CODES, SIDE, CELLS = 12, 32, 64
WORDS = tokenizer().vocab_size


def vocabulary() -> dict[str, int]:
    """Codes in no order, among other ids, as in the public one."""
    order = torch.randperm(CODES, generator=torch.Generator().manual_seed(0)).tolist()
    names = {code_name(code): WORDS + 1 + i for i, code in enumerate(order)}
    return names | {MARKS[0]: WORDS + CODES + 1, MARKS[1]: WORDS, "<image>": WORDS + CODES + 2}


def save_theirs(path: Path, **values: Any) -> Any:
    from diptych.checkpoints.tokenizer_export import save_for_others

    vq = {"embed_dim": 8, "num_embeddings": CODES, "latent_channels": 16, "resolution": SIDE, "base_channels": 32}
    vq |= {"channel_multiplier": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [8]}
    config = transformers.ChameleonConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": WORDS + CODES + 3,
            "max_position_embeddings": CELLS + 2 + 16,
            "vq_config": vq,
            "vocabulary_map": vocabulary(),
            **values,
        }
    )
    model = transformers.ChameleonForConditionalGeneration(config).eval()
    randomise(model)
    model.tie_weights()
    model.save_pretrained(path)
    save_for_others(path, tokenizer())
    return model


def ours(path: Path) -> Chameleon:
    found = read("transformers", path)
    assert found.tokenizer is not None
    model = assemble(found, found.tokenizer).model
    assert isinstance(model, Chameleon)
    return model.eval()


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Images, and rows of an image's ids (0 where its codes go) before a text: (images, tokens, lengths)."""
    return pixels(3, SIDE), torch.randint(3, WORDS, (3, 9)), torch.tensor([9, 9, 9])


@pytest.mark.parametrize("swin", [False, True], ids=["7B", "34B"])
def test_hidden_states_logits_loss_and_gradients_equal_theirs(tmp_path: Path, swin: bool) -> None:
    theirs, (images, tokens, lengths) = save_theirs(tmp_path, swin_norm=swin), rows()
    model = ours(tmp_path)
    assert model.config.language.norm_position == ("swin" if swin else "pre")
    codes = theirs.model.get_image_tokens(2 * images.float() / 255 - 1)
    assert torch.equal(model.code_ids[model.codes(images)], codes)
    assert len(codes.unique()) > CODES / 2
    ids = torch.cat([model.image_ids(model.codes(images)), tokens], 1)
    out = theirs.model(input_ids=ids, output_hidden_states=True)
    seen: list[Tensor] = []
    hidden = model.language(model.language.embed(ids), _causal(), torch.arange(ids.shape[1])[None], before=_noted(seen))
    for mine, yours in zip([*seen, hidden], out.hidden_states, strict=True):
        torch.testing.assert_close(mine, yours, **TOLERANCE)
    logits = theirs.lm_head(out.last_hidden_state)
    torch.testing.assert_close(model.language.logits(hidden), logits, **TOLERANCE)

    batch = Batch(images=images, image_record=torch.arange(3), tokens=tokens, lengths=lengths)
    loss = MixedModalConfig(z_loss=0.0, image_first=1.0).build(model)(batch).total
    labels = ids.clone()
    labels[:, [0, CELLS + 2]] = -100  # the first of all, and the text's start
    their_loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, their_loss, **TOLERANCE)
    loss.backward()
    their_loss.backward()
    parameters, layers = dict(model.named_parameters()), theirs.model.layers
    for name, parameter in {
        "language.token_embed.weight": theirs.model.embed_tokens.weight,
        "language.blocks.0.attention.q_norm.weight": layers[0].self_attn.q_norm.weight,
        "language.blocks.1.attention.k_norm.bias": layers[1].self_attn.k_norm.bias,
        "language.blocks.0.norm_2.weight": layers[0].post_attention_layernorm.weight,
        "language.blocks.1.mlp.fc_gate.weight": layers[1].mlp.gate_proj.weight,
        "language.lm_head.weight": theirs.lm_head.weight,
    }.items():
        mine, yours = parameters[name].grad, parameter.grad
        assert mine is not None
        assert mine.abs().max() > 1e-6, name
        torch.testing.assert_close(mine, yours, rtol=1e-3, atol=1e-5 * float(mine.abs().max()) + 1e-6)


def _causal() -> Any:
    from diptych.nn.mask import MaskPlan

    return MaskPlan(is_causal=True)


def _noted(seen: list[Tensor]) -> Any:
    def before(i: int, x: Tensor) -> Tensor:
        seen.append(x)
        return x

    return before


def test_their_loss_of_an_image_is_infinite(tmp_path: Path) -> None:
    """Their forward pass overwrites the logits of codes, in training too: no image can be learned with it."""
    theirs, (images, tokens, lengths) = save_theirs(tmp_path), rows()
    model = ours(tmp_path)
    ids = torch.cat([tokens, model.image_ids(model.codes(images))], 1)
    out = theirs(input_ids=ids, labels=ids)
    assert out.logits[:, :, model.code_ids].max() == torch.finfo(torch.float32).min
    assert not out.loss < 1e30
    words = ids.masked_fill(torch.isin(ids, model.code_ids), -100)
    assert theirs(input_ids=ids, labels=words).loss < 100
    batch = Batch(images=images, image_record=torch.arange(3), tokens=tokens, lengths=lengths)
    assert MixedModalConfig(image_first=0.0).build(model)(batch).total < 100


def test_log_p_of_a_text_is_theirs_without_codes(tmp_path: Path) -> None:
    theirs, (images, tokens, lengths) = save_theirs(tmp_path), rows()
    model = ours(tmp_path)
    ids = torch.cat([model.image_ids(model.codes(images)), tokens], 1)
    logits = theirs(input_ids=ids).logits[:, CELLS + 2 : -1]
    logits[:, :, model.mark_ids] = torch.finfo(torch.float32).min  # in a text there is no mark either
    log_p = logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).sum((1, 2))
    torch.testing.assert_close(model.log_likelihood(images, tokens, lengths).diagonal(), log_p, **TOLERANCE)


@pytest.mark.parametrize("values", [{"swin_norm": True}, {"tie_word_embeddings": True, "num_key_value_heads": 4}])
def test_there_and_back_is_equal_to_the_byte(tmp_path: Path, values: dict[str, Any]) -> None:
    first = save_theirs(tmp_path / "theirs", **values)
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.ChameleonForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert_equal_states(back.state_dict(), first.state_dict())
    again = read("transformers", tmp_path / "back")
    assert again.config == read("transformers", tmp_path / "theirs").config
    assert back.model.vocabulary_mapping.img2bpe == first.model.vocabulary_mapping.img2bpe


def test_a_model_of_ours_says_the_same_in_transformers(tmp_path: Path) -> None:
    """One norm for all heads becomes one a head; codes behind the words stay there; the decoder is left out."""
    codec = VQVAEConfig(
        image_format=ImageFormat(resolution=SIDE),
        convs=ConvCodecConfig(width=32, multipliers=(1, 2, 2), depth=1, middle="blocks"),
        latent_channels=8,
        quantizer=VectorQuantizerConfig(codes=CODES, width=4),
    )
    mine = trained(small_chameleon(codec=codec, image_format=codec.image_format, context_length=16))
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    convert_to("transformers", tmp_path / "run", tmp_path / "out")
    theirs = transformers.ChameleonForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    model, images = mine.model, pixels(2, SIDE)
    assert isinstance(model, Chameleon)
    ids = model.image_ids(model.codes(images))
    assert torch.equal(theirs.model.get_image_tokens(2 * images.float() / 255 - 1), ids[:, 1:-1])
    hidden = model.language(model.language.embed(ids), _causal(), torch.arange(ids.shape[1])[None])
    with torch.no_grad():
        torch.testing.assert_close(theirs.model(input_ids=ids).last_hidden_state, hidden, **TOLERANCE)


def test_what_chameleon_has_no_place_for_is_said(tmp_path: Path) -> None:
    mine = trained(small_chameleon(context_length=16))
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    with pytest.raises(CheckpointError, match="patch must be 1, got 2"):
        convert_to("transformers", tmp_path / "run", tmp_path / "out")
    save_theirs(tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    config = json.loads(file.read_text())
    for change, message in (
        ({"rms_norm_eps": 1e-6}, "norms with an eps of 1e-06"),
        ({"vocabulary_map": {}}, "vocabulary_map must name every code of an image"),
        ({"max_position_embeddings": 20}, "an image of 66 tokens in a context of 20"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            read("transformers", tmp_path / "theirs")
