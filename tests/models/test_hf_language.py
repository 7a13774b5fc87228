"""A language model of a transformers folder is what transformers computes, in all the ways that ours are used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.native import load, save_pretrained
from diptych.core.config import from_json, override, to_json
from diptych.core.errors import CheckpointError, ConfigError
from diptych.models.generate import Generation
from diptych.models.hf_folder import fill_from_folders
from diptych.models.hf_language import HFLanguageConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.sequence_writer import SequenceWriter
from diptych.nn.cache import Cache
from diptych.nn.mask import Layout, causal
from tests.checkpoints.tiny import tokenizer
from tests.models.writers import greedy_again, small_language, small_prefix_lm, stirred, summed, text_batch

pytest.importorskip("transformers")

from tests.models.hf_models import LANGUAGES, VOCAB, save_language

KINDS = sorted(LANGUAGES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, tuple[Path, Any]]:
    found = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    return {kind: (path, save_language(kind, path)) for kind, path in found.items()}


def built(path: Path, **changes: Any) -> Any:
    model = stirred(small_prefix_lm(language=HFLanguageConfig(path=str(path)), **changes))
    fill_from_folders(model)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_loss_and_gradients_are_theirs(folders, kind: str) -> None:
    path, theirs = folders[kind]
    model, batch = built(path), text_batch((7, 7))
    assert model.vocab_size == VOCAB
    features = model.image_features(batch.images)
    rows = torch.cat([features, theirs.get_input_embeddings()(batch.tokens)], 1)
    out = theirs(inputs_embeds=rows)
    p = features.shape[1]
    found = model.predict(batch)
    order = torch.argsort(found.record, stable=True)
    logits = model.logits(found.hidden)[order].view(2, 6, VOCAB)
    torch.testing.assert_close(logits, out.logits[:, p:-1], atol=1e-5, rtol=1e-5)
    name = next(n for n, w in model.language.named_parameters() if w.ndim == 2 and (".0." in n))
    inner = dict(theirs.base_model.named_parameters())[name.removeprefix("backbone.")]
    grads = []
    for weight, said in ((dict(model.language.named_parameters())[name], logits), (inner, out.logits[:, p:-1])):
        loss = torch.nn.functional.cross_entropy(said.flatten(0, 1), batch.tokens[:, 1:].flatten())
        grads.append(torch.autograd.grad(loss, weight, retain_graph=True)[0])
    assert grads[0].abs().max() > 1e-6
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_are_padded_ones_in_value_and_gradient(folders, kind: str, monkeypatch) -> None:
    batch, found = text_batch((5, 2, 7, 3, 2)), []
    for form in ("rows", "padded"):
        monkeypatch.setattr(SequenceWriter, "_form", lambda self, tokens, form=form: form)
        model = built(folders[kind][0])
        said = model.predict(batch)
        order = torch.argsort(said.record, stable=True)
        (said.hidden[order] * torch.arange(len(order))[:, None]).sum().backward()
        found.append((said.hidden[order], {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for name, g in found[0][1].items():  # sums of thousands of terms in another order
        torch.testing.assert_close(g, found[1][1][name], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_bit_by_bit_is_what_is_read_at_once(folders, kind: str) -> None:
    model, batch = built(folders[kind][0]), text_batch()
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    for shift in range(3):
        turned = replace(batch, images=batch.images.roll(shift, 0))
        pairs = grid[(torch.arange(3) - shift) % 3, torch.arange(3)]
        torch.testing.assert_close(pairs, summed(model, turned), atol=1e-4, rtol=1e-5)
    prompts = [[2, 5, 9], [2], [2, 7]]
    said = model.generate_text(batch.images, prompts, Generation(max_tokens=5))
    for image, prompt, text in zip(batch.images, prompts, said, strict=True):
        assert text == greedy_again(model, image, prompt, 1, 5)


def test_the_bidirectional_prefix_is_theirs_under_the_same_mask(folders) -> None:
    path, theirs = folders["llama"]
    model, batch = built(path, seen="prefix"), text_batch((7, 7))
    features = model.image_features(batch.images)
    rows = torch.cat([features, theirs.get_input_embeddings()(batch.tokens)], 1)
    p, n = features.shape[1], rows.shape[1]
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    seen[:p, :p] = True
    added = torch.where(seen, 0.0, torch.finfo(torch.float32).min).expand(2, 1, n, n)
    out = theirs(inputs_embeds=rows, attention_mask=added)
    found = model.predict(batch)
    logits = model.logits(found.hidden)[torch.argsort(found.record, stable=True)].view(2, 6, VOCAB)
    torch.testing.assert_close(logits, out.logits[:, p:-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_something_may_be_done_before_each_block(folders, kind: str) -> None:
    language = built(folders[kind][0]).language
    x, places = torch.randn(2, 4, language.width), torch.arange(4)[None]
    plan = causal().plan(Layout.plain(4, x.device))
    plain, seen = language(x, plan, places), []

    def before(i: int, y: torch.Tensor) -> torch.Tensor:
        seen.append(i)
        return y + i * torch.linspace(-1, 1, y.shape[-1])  # a norm would take off the same for all

    assert torch.equal(language(x, plan, places, before=lambda i, y: y), plain)
    changed = language(x, plan, places, before=before)
    assert seen == [0, 1]
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.equal(language(x, plan, places), plain)  # nothing stays behind
    with pytest.raises(ConfigError, match="through `before`"):
        language(x, plan, places, context=x)


def test_fresh_weights_of_any_size_need_no_folder() -> None:
    model = LanguageModelConfig(language=HFLanguageConfig(), context_length=9).build(41)
    assert model.vocab_size == 41
    assert model.language.lm_head is None
    assert model.language.width == HFLanguageConfig().token_width()


def test_a_run_loads_where_the_folder_is_not(folders, tmp_path: Path) -> None:
    import shutil

    words = tokenizer(12)
    save_language("opt", tmp_path / "opt", vocab_size=words.vocab_size + 5)
    config = small_prefix_lm(language=HFLanguageConfig(path=str(tmp_path / "opt")))
    model = config.build(words.vocab_size)
    fill_from_folders(model)
    save_pretrained(tmp_path / "run", model, words)
    before = model.eval().predict(text_batch()).hidden
    shutil.rmtree(tmp_path / "opt")
    again = load(tmp_path / "run").model
    assert torch.equal(again.predict(text_batch()).hidden, before)
    assert from_json(to_json(config)) == config
    with pytest.raises(CheckpointError, match="is not there"):
        fill_from_folders(config.build(words.vocab_size))


def test_weights_that_were_never_put_in_are_not_used(folders) -> None:
    model = stirred(small_prefix_lm(language=HFLanguageConfig(path=str(folders["opt"][0]))))
    with pytest.raises(CheckpointError, match="fill_from_folders"):
        model.predict(text_batch())


def test_the_short_form_on_the_command_line(folders) -> None:
    path = folders["llama"][0]
    plain = small_prefix_lm(language=small_language())
    assert override(plain, [f"language=hf:{path}"]).language == HFLanguageConfig(path=str(path))
    long = override(plain, ["language=hf_language", f"language.path={path}"])
    assert long.language == HFLanguageConfig(path=str(path))
    with pytest.raises(ConfigError, match=r"must be a local folder of a transformers model.*Nothing is downloaded"):
        override(plain, ["language=hf:facebook/opt-125m"])


@pytest.mark.parametrize(
    "kind,changes,message",
    [
        ("opt", {"vocab_size": 20}, "of at most 20 tokens; got one of 30"),
        ("llama", {"max_position_embeddings": 16}, "at most 16 together"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "kind 'dynamic'"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(tmp_path: Path, kind: str, changes: dict, message: str) -> None:
    save_language(kind, tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        small_prefix_lm(language=HFLanguageConfig(path=str(tmp_path))).build(30)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"model_type": "mistral", "sliding_window": 4}, "a window of 4 for a context of"),
        ({"model_type": "gemma2", "head_dim": 8}, "logits changed by final_logit_softcapping"),
        ({"model_type": "bloom"}, "lacks position_ids"),
        ({"model_type": "no_such"}, "transformers knows; got model_type 'no_such'"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    import json

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = HFLanguageConfig(settings=json.dumps({**sizes, "intermediate_size": 16, **settings}))
    with pytest.raises(ConfigError, match=message):
        config.build(30, 16)


def test_the_cache_holds_what_was_read(folders) -> None:
    language = built(folders["llama"][0]).language
    reading = language.begin()
    assert isinstance(reading, Cache)
    places = torch.arange(5)[None]
    query, key = reading.add(places)
    with torch.no_grad():
        language(torch.randn(1, 5, language.width), causal().plan(query, key), places, reading)
    assert [layer.own.length for layer in reading.layers] == [5, 5]
    assert reading.layers[0].own.keys.shape == (1, 2, 5, 8)  # as many heads as keys have
