"""Tests against transformers' BLIP-2: parity from random weights of both stages, there and back."""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.key_map import to_ours, to_theirs
from diptych.checkpoints.native import load
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_blip2 import WRITING, qformer_settings, retrieval_rules, vision_settings
from diptych.checkpoints.transformers_llava import _with_image_token
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.models.blip2 import Blip2, Blip2Config
from diptych.models.generate import Generation
from tests.checkpoints.tiny import TOLERANCE, pixels, randomise, tokenizer
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of

transformers = pytest.importorskip("transformers")

QUERIES, ROOM, VOCAB = 4, 40, 60
VISION = {
    "hidden_size": 24,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
ASKING = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}


def their_config(words: Any = None, reads: bool = False, **text: Any) -> Any:
    opt = {
        "vocab_size": VOCAB if words is None else words.vocab_size + 3,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": ROOM,
        "word_embed_proj_dim": 32,
    }
    return transformers.Blip2Config(
        vision_config=VISION,
        qformer_config=ASKING | {"use_qformer_text_input": reads},
        text_config=transformers.OPTConfig(**opt | text).to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=6,
        image_token_index=None if words is None else words.id_of("<image>"),
    )


def save_theirs(path: Path) -> Any:
    """A random second stage whose tokenizer knows the token of an image."""
    words = _with_image_token(tokenizer())
    model = transformers.Blip2ForConditionalGeneration(their_config(words)).eval()
    randomise(model)
    model.tie_weights()
    model.save_pretrained(path)
    save_for_others(path, words)
    return model


def first_stages() -> tuple[Any, Blip2]:
    """Their retrieval model and ours, with the same random weights."""
    theirs = transformers.Blip2ForImageTextRetrieval(their_config(reads=True)).eval()
    randomise(theirs)
    config = Blip2Config(
        image_format=ImageFormat(resolution=32),
        context_length=16,
        embed_dim=24,
        image=vision_settings({**VISION, "hidden_act": "gelu", "layer_norm_eps": 1e-6}),
        qformer=qformer_settings(
            {**ASKING, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "cross_attention_frequency": 2}, QUERIES
        ),
        shared_dim=6,
    )
    model = config.build(VOCAB)
    randomise(model, seed=3)
    state = model.state_dict()
    known = {n: t.shape for n, t in state.items() if not any(fnmatchcase(n, p) for p in WRITING)}
    given = to_ours(retrieval_rules(config), theirs.state_dict(), known)
    model.load_state_dict(state | given)
    again = to_theirs(retrieval_rules(config), {n: t for n, t in model.state_dict().items() if n in known})
    assert again.keys() == theirs.state_dict().keys()
    assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in again.items())
    return theirs, model.eval()


def compare(mine: dict[str, torch.Tensor], pairs: dict[str, torch.Tensor]) -> None:
    for name, theirs in pairs.items():
        grad, expected = mine[name].grad, theirs.grad
        assert expected.abs().max() > 1e-6, f"{name} must have a gradient to compare"
        scale = float(expected.abs().max())
        torch.testing.assert_close(grad.reshape(expected.shape), expected, rtol=1e-3, atol=1e-5 * scale + 1e-6)


def texts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([6, 3, 8])
    tokens = torch.randint(1, VOCAB, (3, 8), generator=torch.Generator().manual_seed(2))
    return tokens, lengths, (torch.arange(8) < lengths[:, None]).long()


def test_matching_logits_and_gradients_equal_theirs() -> None:
    theirs, model = first_stages()
    images, (tokens, lengths, real) = pixels(3, 32), texts()
    labels = torch.tensor([1, 0, 1])
    out = theirs(
        pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real, use_image_text_matching_head=True
    )
    logits = model.matching_logits(model.image_features(images), tokens, lengths)
    torch.testing.assert_close(logits, out.logits_per_image, **TOLERANCE)
    scores = model.score(images, tokens, lengths).diagonal()
    torch.testing.assert_close(scores, out.logits_per_image[:, 1] - out.logits_per_image[:, 0], **TOLERANCE)
    cross_entropy(logits, labels).backward()
    cross_entropy(out.logits_per_image, labels).backward()
    asking, seeing = theirs.qformer.encoder.layer, theirs.vision_model
    gradients = {
        "qformer.queries": theirs.query_tokens,
        "qformer.norm_embed.weight": theirs.qformer.layernorm.weight,
        "qformer.blocks.0.cross_attention.v_proj.weight": asking[0].crossattention.attention.value.weight,
        "qformer.blocks.1.text_mlp.fc_1.weight": asking[1].intermediate.dense.weight,
        "qformer.blocks.2.mlp.fc_2.weight": asking[2].output_query.dense.weight,
        "token_embed.weight": theirs.embeddings.word_embeddings.weight,
        "position_embed": theirs.embeddings.position_embeddings.weight,
        "image_tower.position_embed": seeing.embeddings.position_embedding,
        "image_tower.blocks.0.mlp.fc_1.weight": seeing.encoder.layers[0].mlp.fc1.weight,
    }
    compare(dict(model.named_parameters()), gradients)


def test_similarities_and_gradients_equal_theirs() -> None:
    theirs, model = first_stages()
    images, (tokens, lengths, real) = pixels(3, 32), texts()
    out = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real)
    aligned = model.align(model.image_features(images), tokens, lengths)
    similar = torch.einsum("ime,be->ibm", aligned.queries, aligned.text).amax(-1)
    torch.testing.assert_close(similar, out.logits_per_image, **TOLERANCE)
    cosine = Blip2Config(
        **{**{k: getattr(model.config, k) for k in Blip2Config.model_fields}, "scored_by": "similarity"}
    )
    model.config = cosine
    torch.testing.assert_close(model.score(images, tokens, lengths), out.logits_per_image, **TOLERANCE)
    own = torch.arange(3)
    cross_entropy(9 * similar, own).backward()
    cross_entropy(9 * out.logits_per_image, own).backward()
    asking = theirs.qformer.encoder.layer
    gradients = {
        "qformer.queries": theirs.query_tokens,
        "qformer.blocks.2.cross_attention.k_proj.weight": asking[2].crossattention.attention.key.weight,
        "qformer.blocks.0.attention.q_proj.weight": asking[0].attention.attention.query.weight,
        "query_projection.weight": theirs.vision_projection.weight,
        "text_projection.bias": theirs.text_projection.bias,
    }
    compare(dict(model.named_parameters()), gradients)


def test_states_of_every_kind_of_row_are_those_of_their_q_former() -> None:
    theirs, model = first_stages()
    tokens, lengths, real = texts()
    features = model.image_features(pixels(3, 32))
    queries = theirs.query_tokens.expand(3, -1, -1)
    rows = theirs.embeddings(input_ids=tokens, query_embeds=queries)
    mask = torch.cat([torch.ones(3, QUERIES, dtype=torch.int64), real], 1)
    with torch.no_grad():
        expected = theirs.qformer(
            query_embeds=rows, query_length=QUERIES, attention_mask=mask, encoder_hidden_states=features
        ).last_hidden_state
        found = model.together(features, tokens, lengths, "full")
    seen = mask.bool()
    torch.testing.assert_close(found[seen], expected[seen], **TOLERANCE)


def test_the_second_stages_logits_loss_and_gradients_equal_theirs(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = our_writer(tmp_path)
    images = pixels(2, 32)
    text = torch.randint(3, 200, (2, 7), generator=torch.Generator().manual_seed(3))
    token = theirs.config.image_token_index
    ids = torch.cat([torch.full((2, QUERIES), token), text], 1)
    lengths = torch.tensor([7, 4])
    real = torch.arange(ids.shape[1]) < QUERIES + lengths[:, None]
    labels = torch.where(real, ids, -100)
    labels[:, : QUERIES + 1] = -100
    out = theirs(pixel_values=model.normalise(images), input_ids=ids, attention_mask=real.long(), labels=labels)
    batch = Batch(images=images, image_record=torch.arange(2), tokens=text, lengths=lengths)
    places = [list(range(QUERIES, QUERIES + n - 1)) for n in lengths.tolist()]
    asking, seeing = theirs.qformer.encoder.layer, theirs.vision_model
    opt = theirs.language_model.model.decoder
    gradients = {
        "image_tower.blocks.1.mlp.fc_2.weight": seeing.encoder.layers[1].mlp.fc2.weight,
        "image_tower.norm_post.weight": seeing.post_layernorm.weight,
        "connector.blocks.0.cross_attention.q_proj.weight": asking[0].crossattention.attention.query.weight,
        "connector.blocks.1.mlp.fc_1.bias": asking[1].intermediate_query.dense.bias,
        "connector.proj.weight": theirs.language_projection.weight,
        "language.backbone.decoder.embed_tokens.weight": opt.embed_tokens.weight,
        "language.backbone.decoder.layers.1.self_attn.v_proj.weight": opt.layers[1].self_attn.v_proj.weight,
    }
    check_writer(model, batch, rows_of(out.logits, lambda i: places[i]), out.loss, gradients)


def test_we_write_what_they_write(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path)
    model = our_writer(tmp_path)
    images, start = pixels(1, 32), 2
    said = model.generate_text(images, None, Generation(start_id=start, end_id=1, max_tokens=6))[0]
    ids = torch.tensor([[theirs.config.image_token_index] * QUERIES + [start]])
    out = theirs.generate(
        input_ids=ids, pixel_values=model.normalise(images), max_new_tokens=6, do_sample=False, eos_token_id=1
    )
    assert len(said) == 6
    assert out[0, ids.shape[1] :].tolist() == said


def test_there_and_back_is_equal_to_the_byte(tmp_path: Path) -> None:
    first = save_theirs(tmp_path / "theirs")
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    assert load(tmp_path / "ours").model.config == read("transformers", tmp_path / "theirs").config
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    again = transformers.Blip2ForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(again.get_image_features(x).pooler_output, first.get_image_features(x).pooler_output)
    assert again.config.image_token_index == first.config.image_token_index


def test_folders_that_have_no_place_here_are_refused(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    good = json.loads((tmp_path / "config.json").read_text())

    def refuse(message: str, **changes: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(good | changes))
        with pytest.raises(CheckpointError, match=message):
            read("transformers", tmp_path)

    refuse("without the half that writes", architectures=["Blip2ForImageTextRetrieval"])
    refuse("a language model with an encoder", use_decoder_only_language_model=False)
    refuse("InstructBLIP's kind", qformer_config=good["qformer_config"] | {"use_qformer_text_input": True})
    refuse("have no bias", vision_config=good["vision_config"] | {"qkv_bias": False})
    refuse("no room for text beside the 4 tokens", text_config=good["text_config"] | {"max_position_embeddings": 4})
    refuse(r"Missing \(\d+\)", num_query_tokens=4, qformer_config=good["qformer_config"] | {"num_hidden_layers": 4})
