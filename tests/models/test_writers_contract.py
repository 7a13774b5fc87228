"""What every model that writes promises, whatever lies between its image and its text.

A new writer adds small instances of itself to `SMALL`; that it has some is checked.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

import diptych.models
from diptych.core.batch import Batch
from diptych.core.config import from_json, to_json
from diptych.models.generate import Generation
from diptych.models.hf_language import HFLanguageConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.model import ModelConfig
from diptych.models.sequence_writer import SequenceWriter
from diptych.models.writer import Writer
from tests.models import test_captioner, test_chameleon, test_coca, test_flamingo, test_prefix_lm
from tests.models.small_blip2 import small_blip2
from tests.models.small_fusion import KINDS as BLIP
from tests.models.writers import VOCAB, greedy_again, small_language, small_prefix_lm, stirred, summed, text_batch

SMALL: dict[str, ModelConfig] = {
    **{f"prefix_lm/{kind}": test_prefix_lm.KINDS[kind] for kind in ("llava", "git", "frozen")},
    "prefix_lm/hf": small_prefix_lm(language=HFLanguageConfig()),
    "language_model/rope": LanguageModelConfig(language=small_language(), context_length=12),
    "captioner/plain": test_captioner.KINDS["plain"],
    "coca/cascade": test_coca.KINDS["cascade"],
    "coca/legacy": test_coca.KINDS["legacy"],
    "flamingo/every other": test_flamingo.SMALL,
    "blip2/stage one": small_blip2(),
    "chameleon/tied": test_chameleon.small_chameleon(
        language=test_chameleon.small_chameleon().language.replace(tied=True)
    ),
    "chameleon/swin": test_chameleon.small_chameleon(
        language=test_chameleon.small_chameleon().language.replace(norm_position="swin")
    ),
    **{f"blip/{kind}": config for kind, config in BLIP.items()},
}
NAMES = sorted(SMALL)
BUILD: dict[str, Callable[[ModelConfig], Writer]] = {
    "flamingo": test_flamingo.wide_open,
    "chameleon": test_chameleon.stirred_chameleon,
}
"""How a kind is made ready where stirring is not enough: Flamingo's gates let little through at first, and a fresh
codec has one code for all images."""
LOOSE = {"atol": 1e-4, "rtol": 1e-5}
"""Sums of a text's log-probabilities, whose attention is computed in another order."""


def ready(name: str) -> Writer:
    return BUILD.get(name.split("/")[0], stirred)(SMALL[name]).eval()


def states(model: Writer, batch: Batch) -> list[Tensor]:
    """From which state each target of each record is predicted, record by record."""
    found = model.predict(batch)
    hidden = found.hidden[torch.argsort(found.record, stable=True)]
    return list(hidden.split([int(n) - 1 for n in batch.lengths]))


def test_every_writer_has_a_small_one() -> None:
    there = set()
    for info in pkgutil.iter_modules(diptych.models.__path__):
        module = importlib.import_module(f"diptych.models.{info.name}")
        own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        if any(issubclass(c, Writer) and not c.__abstractmethods__ for c in own):
            there.add(info.name)
    assert there == {name.split("/")[0] for name in SMALL}


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_weights_survive_and_names_are_known(name: str) -> None:
    config = SMALL[name]
    assert from_json(to_json(config)) == config
    model, again = ready(name), stirred(config, seed=5).eval()
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    for mine, other in zip(states(model, text_batch()), states(again, text_batch()), strict=True):
        assert torch.equal(mine, other)
    assert model.decay_free() <= dict(model.named_parameters()).keys()
    assert model.vocab_size == len(model.head()[0]) == VOCAB


@pytest.mark.parametrize("name", NAMES)
def test_each_record_is_what_it_is_alone_in_value_and_gradient(name: str) -> None:
    """A batch of several is packed where that pays; one alone never is."""
    batch, found = text_batch((5, 2, 7, 3, 2, 4)), []
    for parts in ([batch], [batch.slice(i, i + 1) for i in range(6)]):
        model = ready(name)
        hidden = [h for part in parts for h in states(model, part)]
        sum((h * (i + 1)).square().sum() for i, h in enumerate(hidden)).backward()
        found.append((hidden, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    for together, alone in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    largest = max(float(g.abs().max()) for g in found[0][1].values())
    for n, g in found[0][1].items():  # sums of hundreds of terms in another order; some (of keys' biases) come to zero
        torch.testing.assert_close(g, found[1][1][n], atol=1e-6 * largest + 1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_reading_bit_by_bit_is_reading_at_once(name: str) -> None:
    """The start of each row, then the rest of it, ragged; and token by token, from a branch of the same state."""
    model, batch = ready(name), text_batch((5, 2, 7))
    whole = states(model, batch)
    with torch.no_grad():
        state = model.begin_images(batch.images)
        first = model.read(state, batch.tokens[:, :1])
        branch = state.select(torch.tensor([2, 0]))
        rest = model.read(state, batch.tokens[:, 1:], batch.lengths - 1)
        steps = [first[[2, 0]]] + [model.read(branch, batch.tokens[[2, 0], i : i + 1]) for i in range(1, 5)]
    for row, wanted in enumerate(whole):
        found = torch.cat([first, rest], 1)[row, : len(wanted)]
        torch.testing.assert_close(found, wanted.detach(), atol=1e-5, rtol=1e-4)
    for row, of in enumerate((2, 0)):
        n = min(5, len(whole[of]))
        torch.testing.assert_close(torch.cat(steps, 1)[row, :n], whole[of][:n].detach(), atol=1e-5, rtol=1e-4)
    ends = [int(n) - 1 for n in batch.lengths]
    last = torch.stack([torch.cat([first, rest], 1)[i, n] for i, n in enumerate(ends)])
    torch.testing.assert_close(state.last, last)
    assert state.text.tolist() == batch.lengths.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_of_a_grid_are_those_of_each_pair(name: str) -> None:
    model, batch = ready(name), text_batch()
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        pairs = grid[(torch.arange(3) - shift) % 3, torch.arange(3)]
        torch.testing.assert_close(pairs, summed(model, turned).detach(), **LOOSE)
    assert model.text_prior(batch.tokens, batch.lengths).shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_writes_is_what_reading_anew_finds_likeliest(name: str) -> None:
    model, batch = ready(name), text_batch()
    prompts = [[2, 5, 9], [2], [2, 7]]
    said = model.generate_text(batch.images, prompts, Generation(max_tokens=4))
    for image, prompt, text in zip(batch.images, prompts, said, strict=True):
        assert text == greedy_again(model, image, prompt, 1, 4)


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_later_does_not_matter(name: str) -> None:
    model, batch = ready(name), text_batch((7, 6))
    changed = batch.tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 5) % VOCAB
    before, after = states(model, batch), states(model, replace(batch, tokens=changed))
    for mine, other in zip(before, after, strict=True):
        torch.testing.assert_close(mine[:4], other[:4], atol=1e-6, rtol=1e-5)
        assert not torch.allclose(mine[4:], other[4:], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_another_image_matters_to_all_but_the_blind(name: str) -> None:
    model, batch = ready(name), text_batch((4, 4))
    other = replace(batch, images=255 - batch.images)
    blind = name.startswith("language_model")
    for mine, changed in zip(states(model, batch), states(model, other), strict=True):
        assert torch.allclose(mine, changed, atol=1e-4) == blind


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_vectors_stands_for_images(name: str) -> None:
    model, batch = ready(name), text_batch()
    vectors = model.image_vectors(batch.images)
    assert vectors.shape == (3, model.table_width("image"))
    cached = replace(batch, images=None, cached={"image": vectors})
    for mine, other in zip(states(model, batch), states(model, cached), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n.split("/")[0] in ("prefix_lm", "language_model")])
def test_packed_rows_are_the_function_of_padded_ones(name: str, monkeypatch) -> None:
    batch, found = text_batch((5, 2, 7, 3, 2)), []
    for form in ("rows", "padded"):
        monkeypatch.setattr(SequenceWriter, "_form", lambda self, tokens, form=form: form)
        found.append(torch.cat(states(ready(name), batch)))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
