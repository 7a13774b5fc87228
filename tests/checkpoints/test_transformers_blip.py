"""Tests against transformers' BLIP: parity of its three classes from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from diptych.checkpoints.convert import convert, convert_to, read
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.native import load, save_pretrained
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_blip import answering_rules, settings_of, text_rules
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError
from diptych.models.albef import Albef
from diptych.models.blip import Blip, BlipComparer
from diptych.models.generate import Generation
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.blip import BlipPretrainingConfig
from diptych.objectives.token_loss import token_loss
from tests.checkpoints.test_transformers_blip2 import compare
from tests.checkpoints.tiny import TOLERANCE, pixels, randomise, tokenizer
from tests.checkpoints.writer_parity import check_writer, our_writer, rows_of
from tests.models.small_fusion import BERT, small_albef, small_blip

transformers = pytest.importorskip("transformers")

DEC = 300
"""[DEC] stands behind the tokenizer's vocabulary, [ENC] behind it."""
VISION = {
    "hidden_size": 24,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "vocab_size": DEC + 2,
    "hidden_size": 32,
    "encoder_hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
    "bos_token_id": DEC,
    "sep_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def their_model(kind: str, seed: int = 0, **text: Any) -> Any:
    """One of the three classes, its weights random and tied."""
    vision = VISION | ({"hidden_size": 32} if text.get("encoder_hidden_size") == 32 else {})
    config = transformers.BlipConfig(vision_config=vision, text_config=TEXT | text, image_text_hidden_size=6)
    model = getattr(transformers, kind)(config).eval()
    randomise(model, seed)
    model.tie_weights()
    return model


def save_theirs(path: Path, kind: str) -> Any:
    """A random folder with its tokenizer."""
    model = their_model(kind)
    model.save_pretrained(path)
    save_for_others(path, tokenizer())
    return model


def texts(first: int | None = None, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([6, 3, 8])
    tokens = torch.randint(3, DEC, (3, 8), generator=torch.Generator().manual_seed(seed))
    if first is not None:
        tokens[:, 0] = first
    return tokens, lengths, (torch.arange(8) < lengths[:, None]).long()


def test_captions_logits_loss_and_gradients_equal_theirs(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path, "BlipForConditionalGeneration")
    model = our_writer(tmp_path)
    images, (tokens, lengths, real) = pixels(3, 32), texts(DEC)
    labels = torch.where(real.bool(), tokens, -100)
    out = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real, labels=labels)
    batch = Batch(images=images, image_record=torch.arange(3), tokens=tokens, lengths=lengths)
    bert, seeing = theirs.text_decoder.bert, theirs.vision_model
    gradients = {
        "image_tower.blocks.1.mlp.fc_2.weight": seeing.encoder.layers[1].mlp.fc2.weight,
        "image_tower.norm_post.weight": seeing.post_layernorm.weight,
        "text.blocks.0.attention.q_proj.weight": bert.encoder.layer[0].attention.self.query.weight,
        "text.blocks.1.cross_attention.v_proj.weight": bert.encoder.layer[1].crossattention.self.value.weight,
        "text.blocks.1.norm_2.weight": bert.encoder.layer[1].output.LayerNorm.weight,
        "text.token_embed.weight": bert.embeddings.word_embeddings.weight,
        "text.norm_embed.bias": bert.embeddings.LayerNorm.bias,
        "writing_head.fc.weight": theirs.text_decoder.cls.predictions.transform.dense.weight,
        "head_bias": theirs.text_decoder.cls.predictions.bias,
    }
    check_writer(model, batch, rows_of(out.logits, lambda i: list(range(int(lengths[i]) - 1))), out.loss, gradients)


def test_their_default_does_not_smooth_labels_where_the_authors_have_a_tenth(tmp_path: Path) -> None:
    """The loss of transformers' class is ours with writing_smoothing 0; told 0.1, as BLIP was trained, it is ours with
    that, which is our objective's default."""
    assert transformers.BlipTextConfig().label_smoothing == 0.0
    assert BlipPretrainingConfig().writing_smoothing == 0.1
    save_theirs(tmp_path, "BlipForConditionalGeneration")
    model, theirs = our_writer(tmp_path), their_model("BlipForConditionalGeneration", label_smoothing=0.1)
    images, (tokens, lengths, real) = pixels(3, 32), texts(DEC)
    labels = torch.where(real.bool(), tokens, -100)
    out = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real, labels=labels)
    found = model.predict(Batch(images=images, image_record=torch.arange(3), tokens=tokens, lengths=lengths))
    for smoothing, equal in ((0.1, True), (0.0, False)):
        loss = token_loss(found.hidden, *model.head(), found.targets, smoothing)[0] / len(found.targets)
        assert (loss.item() == pytest.approx(out.loss.item(), abs=1e-4)) == equal


def test_we_write_what_they_write(tmp_path: Path) -> None:
    theirs = save_theirs(tmp_path, "BlipForConditionalGeneration")
    model = our_writer(tmp_path)
    images = pixels(1, 32)
    said = model.generate_text(images, None, Generation(start_id=2, end_id=1, max_tokens=6))[0]
    out = theirs.generate(pixel_values=model.normalise(images), max_new_tokens=6, do_sample=False)
    assert len(said) == 6
    assert out[0, 1:].tolist() == said


def comparer(path: Path) -> tuple[Any, BlipComparer]:
    theirs = save_theirs(path, "BlipForImageTextRetrieval")
    convert("transformers", path, path / "ours")
    model = load(path / "ours").model
    assert isinstance(model, BlipComparer)
    return theirs, model


def test_matching_scores_and_gradients_equal_theirs(tmp_path: Path) -> None:
    theirs, model = comparer(tmp_path)
    images, (tokens, lengths, real) = pixels(3, 32), texts(DEC + 1)
    out = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real)
    logits = model.matching_logits(model.image_features(images), tokens, lengths)
    torch.testing.assert_close(logits, out.itm_score, **TOLERANCE)
    scores = model.score(images, tokens, lengths).diagonal()
    torch.testing.assert_close(scores, out.itm_score[:, 1] - out.itm_score[:, 0], **TOLERANCE)
    labels = torch.tensor([1, 0, 1])
    cross_entropy(logits, labels).backward()
    cross_entropy(out.itm_score, labels).backward()
    layers = theirs.text_encoder.encoder.layer
    gradients = {
        "matching_head.weight": theirs.itm_head.weight,
        "text.blocks.0.cross_attention.k_proj.weight": layers[0].crossattention.self.key.weight,
        "text.blocks.1.attention.out_proj.weight": layers[1].attention.output.dense.weight,
        "text.blocks.1.mlp.fc_1.bias": layers[1].intermediate.dense.bias,
        "text.position_embed": theirs.text_encoder.embeddings.position_embeddings.weight,
        "image_tower.position_embed": theirs.vision_model.embeddings.position_embedding,
    }
    compare(dict(model.named_parameters()), gradients)


def test_their_matching_reads_what_stands_first_where_the_authors_put_enc(tmp_path: Path) -> None:
    """With [CLS] first, as their processor gives it, it is another score than the authors', and than ours, which put
    [ENC] there."""
    theirs, model = comparer(tmp_path)
    images, (tokens, lengths, real) = pixels(3, 32), texts(2)
    with torch.no_grad():
        as_given = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real).itm_score
        features = model.image_features(images)
        ours = model.matching_logits(features, tokens, lengths)
        told = model.matching_head(model.grounded(features, tokens, lengths, first_id=-1)[:, 0])
    torch.testing.assert_close(told, as_given, **TOLERANCE)
    assert (ours - as_given).abs().max() > 0.01


def test_similarities_equal_theirs(tmp_path: Path) -> None:
    theirs, model = comparer(tmp_path)
    images, (tokens, lengths, real) = pixels(3, 32), texts()
    out = theirs(pixel_values=model.normalise(images), input_ids=tokens, attention_mask=real, use_itm_head=False)
    found = model.encode_image(images) @ model.encode_text(tokens, lengths).T
    torch.testing.assert_close(found, out.itm_score, **TOLERANCE)
    own = torch.arange(3)
    cross_entropy(9 * found, own).backward()
    cross_entropy(9 * out.itm_score, own).backward()
    layers = theirs.text_encoder.encoder.layer
    gradients = {
        "image_projection.weight": theirs.vision_proj.weight,
        "text_projection.bias": theirs.text_proj.bias,
        "text.blocks.0.attention.v_proj.weight": layers[0].attention.self.value.weight,
        "text.blocks.1.norm_1.weight": layers[1].attention.output.LayerNorm.weight,
    }
    compare(dict(model.named_parameters()), gradients)


def answerers() -> tuple[Any, Blip]:
    """Theirs and ours, with the same random weights in all that theirs has."""
    theirs = their_model("BlipForQuestionAnswering", encoder_hidden_size=32)
    config = settings_of(theirs.config.to_dict(), "all")
    model = config.build(DEC + 2)
    randomise(model, seed=3)
    assert isinstance(model, Blip)
    mine = model.state_dict()
    lacking = ("image_projection", "text_projection", "matching_head", "log_logit_scale")
    known = {n: t.shape for n, t in mine.items() if not n.startswith(lacking)}
    ignore = r"position_ids|cls\.predictions\.decoder"
    model.load_state_dict(mine | to_ours(answering_rules(config), theirs.state_dict(), known, ignore))
    back = to_theirs(answering_rules(config), {n: t for n, t in model.state_dict().items() if n in known})
    assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in back.items())
    return theirs, model.eval()


def test_answers_loss_and_gradients_equal_theirs() -> None:
    theirs, model = answerers()
    images, asked = pixels(3, 32), texts(DEC + 1)[0]
    answers, lengths, said = texts(DEC, seed=5)
    labels = torch.where(said.bool(), answers, -100)
    out = theirs(
        pixel_values=model.normalise(images), input_ids=asked, attention_mask=torch.ones_like(asked),
        decoder_input_ids=answers, decoder_attention_mask=said, labels=labels,
    )  # fmt: skip
    questions = (asked, torch.tensor([8, 8, 8]))
    found = model.answer(model.image_features(images), questions, Batch(tokens=answers, lengths=lengths))
    loss = token_loss(found.hidden, *model.head(), found.targets)[0] / len(found.targets)
    torch.testing.assert_close(loss, out.loss, **TOLERANCE)
    loss.backward()
    out.loss.backward()
    asking, answering = theirs.text_encoder.encoder.layer, theirs.text_decoder.bert.encoder.layer
    gradients = {
        "text.blocks.0.cross_attention.q_proj.weight": asking[0].crossattention.self.query.weight,
        "text.token_embed.weight": theirs.text_encoder.embeddings.word_embeddings.weight,
        "writing_text.blocks.1.cross_attention.k_proj.weight": answering[1].crossattention.self.key.weight,
        "writing_text.blocks.0.mlp.fc_2.weight": answering[0].output.dense.weight,
        "image_tower.blocks.0.norm_1.weight": theirs.vision_model.encoder.layers[0].layer_norm1.weight,
    }
    compare(dict(model.named_parameters()), gradients)


def test_their_answers_see_the_padding_of_questions() -> None:
    """Their cross-attention loses its mask on the way (`BlipTextAttention.forward` gives it as `attention_mask`, which
    is then replaced by `encoder_attention_mask`, None): what pads a question changes its answer. Without our mask ours
    is theirs; with it, padding changes nothing."""
    theirs, model = answerers()
    images, (asked, sizes, real) = pixels(3, 32), texts(DEC + 1)
    answers, lengths, _ = texts(DEC, seed=5)
    labels = torch.where(torch.arange(8) < lengths[:, None], answers, -100)
    features, batch = model.image_features(images), Batch(tokens=answers, lengths=lengths)

    def both(questions: torch.Tensor) -> tuple[float, float, float]:
        with torch.no_grad():
            out = theirs(
                pixel_values=model.normalise(images), input_ids=questions, attention_mask=real,
                decoder_input_ids=answers, labels=labels,
            )  # fmt: skip
            unmasked = model.written(model.grounded(features, questions, sizes), batch)
            masked = model.answer(features, (questions, sizes), batch)
            mine = [token_loss(x.hidden, *model.head(), x.targets)[0] / len(x.targets) for x in (unmasked, masked)]
        return out.loss.item(), mine[0].item(), mine[1].item()

    first, other = both(asked), both(torch.where(real.bool(), asked, 7))
    assert first[0] == pytest.approx(first[1], abs=1e-4)
    assert other[0] == pytest.approx(other[1], abs=1e-4)
    assert abs(first[0] - other[0]) > 1e-3
    assert first[2] == pytest.approx(other[2], abs=1e-6)


@pytest.mark.parametrize("kind", ["BlipForConditionalGeneration", "BlipForImageTextRetrieval"])
def test_there_and_back_is_equal_to_the_byte(kind: str, tmp_path: Path) -> None:
    first = save_theirs(tmp_path / "theirs", kind)
    convert("transformers", tmp_path / "theirs", tmp_path / "ours")
    assert load(tmp_path / "ours").model.config == read("transformers", tmp_path / "theirs").config
    convert_to("transformers", tmp_path / "ours", tmp_path / "back")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    again = getattr(transformers, kind).from_pretrained(tmp_path / "back").eval()
    x, tokens = torch.randn(2, 3, 32, 32), texts()[0][:2]
    with torch.no_grad():
        found = [m(pixel_values=x, input_ids=tokens) for m in (first, again)]
    torch.testing.assert_close(found[0].last_hidden_state, found[1].last_hidden_state)
    assert again.config.text_config.bos_token_id == DEC


def test_folders_that_have_no_place_here_are_refused(tmp_path: Path) -> None:
    save_theirs(tmp_path, "BlipForImageTextRetrieval")
    good = json.loads((tmp_path / "config.json").read_text())

    def refuse(message: str, **changes: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(good | changes))
        with pytest.raises(CheckpointError, match=message):
            read("transformers", tmp_path)

    refuse("no token behind", text_config=good["text_config"] | {"bos_token_id": DEC + 1})
    refuse("a text that looks at 20 wide tokens", text_config=good["text_config"] | {"encoder_hidden_size": 20})
    (tmp_path / "config.json").write_text(json.dumps(good | {"architectures": []}))
    assert read("transformers", tmp_path).config.roles == "compares"
    answering = their_model("BlipForQuestionAnswering")
    answering.save_pretrained(tmp_path / "answers")
    with pytest.raises(CheckpointError, match="a text side for questions and one for answers"):
        read("transformers", tmp_path / "answers")


def test_models_that_have_no_place_there_are_refused(tmp_path: Path) -> None:
    words = tokenizer(12)
    for config, message in (
        (small_blip(), "roles must be 'writes' or 'compares', got 'all'"),
        (small_blip(roles="writes"), "whose write_id is a token of the vocabulary; got -1"),
    ):
        folder = tmp_path / config.roles
        save_pretrained(folder, config.build(words.vocab_size), words)
        with pytest.raises(CheckpointError, match=message):
            convert_to("transformers", folder, tmp_path / "out")


def test_albef_is_two_of_their_text_models_one_behind_the_other() -> None:
    """transformers has no ALBEF: its halves are BLIP's text model without and with sight of the image."""
    from transformers.models.blip.modeling_blip_text import BlipTextModel, BlipTextOnlyMLMHead

    alone = transformers.BlipTextConfig(**TEXT | {"num_hidden_layers": 1, "is_decoder": False})
    seeing = transformers.BlipTextConfig(**TEXT | {"num_hidden_layers": 1, "is_decoder": True})
    first, second = BlipTextModel(alone, False).eval(), BlipTextModel(seeing, False).eval()
    head = BlipTextOnlyMLMHead(seeing)
    for seed, module in enumerate((first, second, head)):
        randomise(module, seed)
    block = BERT.replace(width=32, depth=1, mlp_ratio=2.0)
    tower = VisionTransformerConfig(width=24, depth=1, heads=2, patch_size=8, norm_pre=False, patch_bias=True)
    model = small_albef(text=block, image=tower, context_length=16).build(DEC + 1)
    assert isinstance(model, Albef)
    randomise(model, seed=5)
    read_, fused = (text_rules(block, "text", name) for name in ("first", "second"))
    rules = [r for r in read_ if ".crossattention." not in r.theirs]
    rules += [
        Rule(tuple(n.replace("text.blocks.", "fusion.") for n in r.ours), r.theirs)
        for r in fused
        if ".layer." in r.theirs
    ]
    rules += same(
        [("masked_head.fc", "predictions.transform.dense"), ("masked_head.norm", "predictions.transform.LayerNorm")]
    )
    theirs = {f"{n}.{k}": t for n, m in (("first", first), ("second", second)) for k, t in m.state_dict().items()}
    theirs |= head.state_dict()
    mine = model.state_dict()
    known = {n: mine[n].shape for r in rules for n in r.ours}
    unused = r"position_ids|second\.embeddings|^predictions\.(bias|decoder)"
    model.load_state_dict(mine | to_ours(rules, theirs, known, unused))
    model.eval()
    images, (tokens, lengths, real) = pixels(3, 16), texts()
    features = model.image_features(images)
    states = first(input_ids=tokens, attention_mask=real)[0]
    seen = torch.ones(features.shape[:2], dtype=torch.int64)
    out = second(
        encoder_embeds=states, attention_mask=real, encoder_hidden_states=features, encoder_attention_mask=seen
    )[0]
    found, where = model.fuse(features, model.read(tokens, lengths), lengths), real.bool()
    torch.testing.assert_close(found[where], out[where], **TOLERANCE)
    every = torch.arange(8).expand(3, -1)
    foreseen = model.masked_states(features, tokens, lengths, every)
    torch.testing.assert_close(foreseen[where], head.predictions.transform(out)[where], **TOLERANCE)
    (found[where] ** 3).sum().backward(retain_graph=True)
    (out[where] ** 3).sum().backward()
    gradients = {
        "text.blocks.0.attention.q_proj.weight": first.encoder.layer[0].attention.self.query.weight,
        "text.position_embed": first.embeddings.position_embeddings.weight,
        "fusion.0.cross_attention.v_proj.weight": second.encoder.layer[0].crossattention.self.value.weight,
        "fusion.0.mlp.fc_1.weight": second.encoder.layer[0].intermediate.dense.weight,
    }
    compare(dict(model.named_parameters()), gradients)
