"""Flamingo's promises: it begins as its language model, it never looks ahead, and every way to compute it is one.

What every writer promises is in test_writers_contract.py, Flamingo among them.
"""

from dataclasses import replace

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.core.image_format import ImageFormat
from diptych.models.connectors.linear import LinearConfig
from diptych.models.connectors.perceiver import PerceiverConfig
from diptych.models.flamingo import Flamingo, FlamingoConfig, crossed
from diptych.models.hf_language import HFLanguageConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.perceiver import GatedCrossAttentionConfig
from tests.models.towers import stir
from tests.models.writers import VOCAB, small_language, stirred, text_batch

SMALL = FlamingoConfig(
    image_format=ImageFormat(resolution=16),
    context_length=24,
    embed_dim=8,
    image=VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=8),
    connector=PerceiverConfig(latents=3, depth=1, heads=2, head_width=4),
    language=small_language(depth=3),
    cross=GatedCrossAttentionConfig(heads=2, head_width=4),
    cross_every=2,
)
KINDS = {
    "flamingo": SMALL,
    "every block": SMALL.replace(cross_every=1, foretells=True, reading=ImageReadingConfig(cls=False)),
    "idefics": SMALL.replace(
        cross_at="first",
        cross=SMALL.cross.replace(gate="vector", norm="rms", activation="swiglu", qk_norm=True),
        language=small_language(depth=3, norm="rms", bias=False, tied=False, activation="swiglu"),
    ),
    "no resampler": SMALL.replace(
        connector=LinearConfig(), language=small_language(positions="learned", kv_heads=1, depth=2)
    ),
    "of transformers": SMALL.replace(language=HFLanguageConfig()),
}
START = 1


def wide_open(config: FlamingoConfig, seed: int = 0) -> Flamingo:
    """With gates that a single image's difference gets through."""
    model = stirred(config, seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("gate"):
                p.add_(1.0)
    return model


def pages(lengths=(5, 4, 7, 3, 2, 6)) -> Batch:
    """Texts with images at their start, inside, two at one place, behind the end; some with none, or late ones."""
    batch = text_batch(lengths)
    record = [0, 0, 0, 2, 2, 2, 3, 5]
    g = torch.Generator().manual_seed(3)
    return replace(
        batch,
        images=torch.randint(0, 256, (8, 3, 16, 16), generator=g, dtype=torch.uint8),
        image_record=torch.tensor(record),
        image_position=torch.tensor([0, 3, 5, 2, 2, 4, 0, 1]),
        image_ids=None,
    )


def in_order(found):
    order = torch.argsort(found.record, stable=True)
    return found.hidden[order], found.targets[order]


@pytest.mark.parametrize("kind", KINDS)
def test_at_first_it_is_its_language_model_bit_for_bit(kind):
    config = KINDS[kind]
    model = config.build(VOCAB).eval()
    alone = LanguageModelConfig(context_length=24, language=config.language).build(VOCAB).eval()
    stir(alone)
    model.language.load_state_dict(alone.language.state_dict())
    stir(model.connector)
    assert torch.equal(model.predict(pages()).hidden, alone.predict(pages()).hidden)
    images, said = pages().images[:6], (pages().tokens, pages().lengths)
    torch.testing.assert_close(model.log_likelihood(images, *said), alone.log_likelihood(images, *said))


def test_at_first_only_gates_get_a_gradient():
    model = SMALL.build(VOCAB)
    for p in model.language.parameters():
        p.requires_grad_(False)
    model.predict(pages()).hidden.square().sum().backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"gates.0.gate", "gates.0.mlp_gate"}


@pytest.mark.parametrize("kind", KINDS)
def test_then_everything_does(kind):
    model = wide_open(KINDS[kind])
    model.predict(pages()).hidden.square().sum().backward()
    for name, p in model.named_parameters():
        assert name == "language.lm_head.weight" or p.requires_grad == (p.grad is not None), name


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_are_the_function_of_padded_ones_in_value_and_gradient(kind, monkeypatch):
    found = []
    for form in ("rows", "padded"):
        monkeypatch.setattr(Flamingo, "_form", lambda self, form=form: form)
        model = wide_open(KINDS[kind])
        hidden, targets = in_order(model.predict(pages()))
        (hidden * torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)).sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((hidden, targets, grads))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0][1], found[1][1])
    for name, g in found[0][2].items():  # sums in another order
        torch.testing.assert_close(g, found[1][2][name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_each_record_is_what_it_is_alone(kind):
    """So that neither a batch's other images nor its packing are seen."""
    model, batch = wide_open(KINDS[kind]), pages()
    hidden, _ = in_order(model.predict(batch))
    alone = [model.predict(batch.slice(i, i + 1)).hidden for i in range(6)]
    torch.testing.assert_close(hidden, torch.cat(alone), atol=1e-5, rtol=1e-5)


def changed(image: int, config: FlamingoConfig = SMALL) -> list[bool]:
    """Which states of the text of record 0 (tokens 0 to 3, each predicting the next) change with an image of it."""
    model, batch = wide_open(config), pages()
    images = batch.images.clone()
    images[image] = 255 - images[image]
    with torch.no_grad():
        before, after = (model.predict(replace(batch, images=x)) for x in (batch.images, images))
    others = before.record != 0
    assert torch.equal(before.hidden[others], after.hidden[others])
    return (~torch.isclose(before.hidden, after.hidden, atol=1e-5).all(1))[before.record == 0].tolist()


def test_a_later_image_cannot_change_an_earlier_answer():
    assert changed(0) == [True, True, True, True]  # directly, then through the text before
    assert changed(1) == [False, False, False, True]  # stands before token 3
    assert changed(2) == [False] * 4  # behind the last token


def test_the_first_word_behind_an_image_may_be_foretold_from_it():
    foretells = SMALL.replace(foretells=True)
    assert changed(1, foretells) == [False, False, True, True]  # the state of token 2 foretells token 3
    assert changed(2, foretells) == [False] * 4


def test_cross_attention_looks_at_the_last_image_alone():
    """In a language model of one block no text carries an earlier image on: only what is seen directly is left."""
    model = wide_open(SMALL.replace(cross_every=1, language=small_language(depth=1)))
    batch = pages().slice(2, 3)  # images before token 2, 2 and 4
    images = batch.images.clone()
    images[0] = 255 - images[0]
    seen = model.predict(replace(batch, images=images)).hidden
    assert torch.equal(seen, model.predict(batch).hidden)  # of two at one place, the first is never the last


def test_tokens_before_any_image_see_none():
    model, batch = wide_open(SMALL), pages().slice(2, 3)
    blind = replace(batch, images=None, image_record=None, image_position=None)
    with torch.no_grad():
        sighted, alone = model.predict(batch).hidden, model.predict(blind).hidden
    torch.testing.assert_close(sighted[:2], alone[:2])
    assert not torch.isclose(sighted[2:], alone[2:], atol=1e-4).all(1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_reading_bit_by_bit_is_the_full_forward(kind):
    """Prompts of several images, of none, and of one behind the prompt, which the answer alone sees."""
    model, batch = wide_open(KINDS[kind]), pages()
    model.eval()
    prompts = torch.tensor([5, 2, 4, 1, 2, 3])  # image 2 stands behind record 0's five tokens
    answers = torch.randint(3, VOCAB, (6, 4), generator=torch.Generator().manual_seed(5))
    sizes = torch.tensor([4, 1, 3, 4, 2, 4])
    asked = replace(batch, lengths=prompts)
    whole = torch.zeros(6, 11, dtype=torch.int64)
    for i in range(6):
        row = torch.cat([batch.tokens[i, : prompts[i]], answers[i, : sizes[i]]])
        whole[i, : len(row)] = row
    full = replace(batch, tokens=whole, lengths=prompts + sizes)
    with torch.no_grad():
        wanted = model.predict(full)
        state = model.begin(model.features_of(batch), asked)
        first = state.last
        both = state.select(torch.tensor([3, 0, 1, 2, 3, 4, 5]))
        at_once = model.read(state, answers, sizes)
        one_by_one = [model.read(both, answers[[3, 0, 1, 2, 3, 4, 5], i : i + 1])[1:, 0] for i in range(4)]
    for i in range(6):
        own = wanted.hidden[wanted.record == i]
        said = slice(int(prompts[i]), int(prompts[i] + sizes[i]) - 1)
        torch.testing.assert_close(first[i], own[prompts[i] - 1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(at_once[i, : sizes[i] - 1], own[said], atol=1e-5, rtol=1e-4)
        stepped = torch.stack(one_by_one)[: sizes[i] - 1, i]
        torch.testing.assert_close(stepped, own[said], atol=1e-5, rtol=1e-4)


def test_where_cross_attention_stands():
    assert crossed(8, 1, "last") == tuple(range(8))
    assert crossed(8, 4, "last") == (3, 7)
    assert crossed(80, 7, "last")[:2] == (6, 13)  # of 80 blocks, 11 look
    assert crossed(8, 4, "first") == (0, 4)
    assert len(SMALL.build(VOCAB).gates) == 1
    with pytest.raises(ConfigError, match="cross_every must be at most"):
        SMALL.replace(language=small_language(depth=2), cross_every=3).build(VOCAB)


def test_too_long_a_text_is_refused():
    model = stirred(SMALL.replace(context_length=4))
    with pytest.raises(DataError, match="at most 4 tokens; got 5"):
        model.predict(text_batch((5,)))
