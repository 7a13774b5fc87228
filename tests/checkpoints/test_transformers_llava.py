"""Tests against transformers' LlavaForConditionalGeneration: parity from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.native import load, save_pretrained
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.checkpoints.tiny import TEXTS, assert_equal_states, pixels, randomise, tokenizer, trained
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of

transformers = pytest.importorskip("transformers")

PATCHES, ROOM = 16, 64


def save_theirs(path: Path, tied: bool = False, strategy: str = "default", **values: Any) -> Any:
    """A random LLaVA whose tokenizer knows the token of an image."""
    from diptych.checkpoints.tokenizer_export import save_for_others
    from diptych.checkpoints.transformers_llava import _with_image_token

    words = _with_image_token(tokenizer())
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=transformers.LlamaConfig(
            **{
                "hidden_size": 32,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": words.vocab_size + 3,
                "max_position_embeddings": ROOM,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
                "tie_word_embeddings": tied,
                **values,
            }
        ),
        image_token_index=words.id_of("<image>"),
        image_seq_length=PATCHES,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=tied,
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    randomise(model)
    model.tie_weights()
    model.save_pretrained(path)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    save_for_others(path, words)
    return model


@pytest.mark.parametrize("tied,strategy", [(False, "default"), (True, "full")])
def test_logits_loss_and_gradients_equal_theirs(tmp_path: Path, tied: bool, strategy: str) -> None:
    """The image stands in the middle of the first text, the second has none, and only answers bear loss."""
    theirs = save_theirs(tmp_path, tied, strategy)
    model = our_writer(tmp_path)
    images, patches = pixels(1, 32), PATCHES + (strategy == "full")
    text = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(3))
    token = theirs.config.image_token_index
    first = torch.cat([text[0, :4], torch.full((patches,), token), text[0, 4:]])
    second = torch.cat([text[1], torch.zeros(patches, dtype=torch.int64)])
    ids, real = torch.stack([first, second]), torch.tensor([9 + patches, 9])
    loss_mask = torch.zeros(2, 9, dtype=torch.bool)
    loss_mask[0, 5:], loss_mask[1, 3:] = True, True
    labels = torch.full_like(ids, -100)
    labels[0, patches + 5 :], labels[1, 3:9] = text[0, 5:], text[1, 3:]
    out = theirs(
        input_ids=ids,
        pixel_values=model.normalise(images),
        attention_mask=(torch.arange(ids.shape[1]) < real[:, None]).long(),
        labels=labels,
    )
    batch = Batch(
        images=images,
        image_record=torch.tensor([0]),
        image_position=torch.tensor([4]),
        tokens=text,
        lengths=torch.tensor([9, 9]),
        loss_mask=loss_mask,
    )
    places = [list(range(patches + 4, patches + 8)), list(range(2, 8))]
    inside = theirs.model
    gradients = {
        "image_tower.cls_token": inside.vision_tower.embeddings.class_embedding,
        "image_tower.blocks.0.attention.k_proj.weight": inside.vision_tower.encoder.layers[0].self_attn.k_proj.weight,
        "connector.fc_1.weight": inside.multi_modal_projector.linear_1.weight,
        "connector.fc_2.bias": inside.multi_modal_projector.linear_2.bias,
        "language.token_embed.weight": inside.language_model.embed_tokens.weight,
        "language.blocks.1.attention.v_proj.weight": inside.language_model.layers[1].self_attn.v_proj.weight,
        "language.norm_final.weight": inside.language_model.norm.weight,
    }
    check_writer(model, batch, rows_of(out.logits, lambda i: places[i]), out.loss, gradients)


def test_what_we_write_is_what_they_write(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path / "theirs")
    model = our_writer(tmp_path / "theirs")
    from diptych.models.generate import Generation

    images, start, token = pixels(1, 32), 2, theirs.config.image_token_index
    said = model.generate_text(images, None, Generation(max_tokens=6))[0]
    ids = torch.tensor([[token] * PATCHES + [start]])
    out = theirs.generate(
        input_ids=ids, pixel_values=model.normalise(images), max_new_tokens=6, do_sample=False, eos_token_id=1
    )
    assert said == [i for i in out[0, ids.shape[1] :].tolist() if i != 1]


@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_is_equal_to_the_byte(tmp_path: Path, tied: bool) -> None:
    first = save_theirs(tmp_path / "theirs", tied)
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    back = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert_equal_states(back.state_dict(), first.state_dict())
    assert read("transformers", tmp_path / "back").config == read("transformers", tmp_path / "theirs").config
    names = set(load_file(tmp_path / "back/model.safetensors"))
    assert "vision_tower.vision_model.embeddings.class_embedding" in names  # as the authors published it
    assert "language_model.model.norm.weight" in names
    processor = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert processor.convert_tokens_to_ids("<image>") == back.config.image_token_index


def test_all_three_spellings_of_names_are_read(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    plain = read("transformers", tmp_path).state
    file = tmp_path / "model.safetensors"
    for spell in (
        lambda n: n.replace("vision_tower.", "vision_tower.vision_model.", 1),
        lambda n: f"model.{n.replace('language_model.model.', 'language_model.')}" if "lm_head" not in n else n,
    ):
        save_file({spell(n): t for n, t in load_file(file).items()}, file)
        assert_equal_states(read("transformers", tmp_path).state, plain)
        save_theirs(tmp_path)


def llava_config(**values: Any) -> PrefixLMConfig:
    llama = CausalTransformerConfig(
        width=32, depth=1, heads=4, kv_heads=2, activation="swiglu", norm="rms", bias=False, tied=False
    )
    image = VisionTransformerConfig(width=32, depth=2, heads=2, patch_size=8, projection="none")
    plain = {"image": image, "embed_dim": 32, "reading": ImageReadingConfig(layer=-2, cls=False), "language": llama}
    return PrefixLMConfig(**plain | {"context_length": 16, "image_format": ImageFormat(resolution=32)} | values)


def test_a_model_of_ours_says_the_same_in_transformers(tmp_path: Path) -> None:
    mine = trained(llava_config())
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    convert_to("transformers", tmp_path / "run", tmp_path / "out")
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.image_token_index == mine.tokenizer.vocab_size  # a row of its own
    tokens, lengths = mine.tokenizer.batch(TEXTS[:1])
    images = pixels(1, 32)
    batch = Batch(images=images, image_record=torch.tensor([0]), tokens=tokens, lengths=lengths)
    ids = torch.cat([torch.full((1, PATCHES), theirs.config.image_token_index), tokens], 1)
    with torch.no_grad():
        found = mine.model.predict(batch)
        out = theirs(input_ids=ids, pixel_values=mine.model.normalise(images)).logits[0, PATCHES:-1]
        torch.testing.assert_close(mine.model.logits(found.hidden), out[:, :-1], atol=2e-5, rtol=1e-4)
    back = load(convert("transformers", tmp_path / "out", tmp_path / "back")).model.state_dict()
    for name, tensor in mine.model.state_dict().items():
        assert torch.equal(back[name][: len(tensor)], tensor), name


@pytest.mark.parametrize(
    "values,message",
    [
        ({"seen": "prefix"}, "seen must be 'causal'"),
        ({"reading": ImageReadingConfig()}, "tokens of an earlier layer"),
        ({"language": CausalTransformerConfig(width=32, depth=1, heads=2)}, "norm must be 'rms'"),
        ({"image": llava_config().image.replace(norm_pre=False)}, "norm_pre must be True"),
    ],
)
def test_what_llava_has_no_place_for_is_said(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    from diptych.checkpoints.transformers_llava import write

    with pytest.raises(CheckpointError, match=message):
        write(trained(llava_config(**values)), tmp_path / "out")


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"vision_feature_layer": [-2, -3]}, "features of several layers"),
        ({"vision_feature_layer": -1}, "last layer without its norm"),
        ({"projector_hidden_act": "relu"}, "a projector without biases"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "an image tower of type"),
        ({"text_config": {"model_type": "mistral"}}, "a language model of type 'mistral'"),
        ({"text_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}}, "rotary positions of type 'linear'"),
        ({"text_config": {"max_position_embeddings": 16}}, "no room for text"),
    ],
)
def test_what_we_have_no_place_for_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_theirs(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name, value in changes.items():
        if not isinstance(value, dict):
            config[name] = value
        else:
            config[name] = {**config[name], **value}
            if "rope_scaling" in value:
                config[name].pop("rope_parameters", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        read("transformers", tmp_path)


def test_a_layer_counted_from_the_front_is_the_same_layer(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    plain = read("transformers", tmp_path).config
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vision_feature_layer": 2}))
    assert read("transformers", tmp_path).config == plain
