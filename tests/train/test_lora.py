import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import diptych.train.lora as lora
from diptych.checkpoints.adapters import is_adapter
from diptych.checkpoints.convert import convert
from diptych.checkpoints.native import load, save_pretrained
from diptych.core.errors import ConfigError
from diptych.data.dataset import Dataset
from diptych.train.build import build_objective, find_tokenizer
from diptych.train.freeze import freeze
from diptych.train.loop import train
from diptych.train.lora import LoraConfig, adapter_fact, add_adapters, plain, target_names
from tests.train.locked import lit
from tests.train.staged import prefix_run
from tests.train.test_loop import Killed, kill_at, weights

CPU = torch.device("cpu")
ADAPTED = LoraConfig(rank=2, alpha=4.0, dropout=0.1)


def _lit(data: Path, **train_settings: object):
    """Two small transformers whose queries and values are adapted, and the temperature besides."""
    settings = {"freeze": (), "lora": ADAPTED, "only": ("log_logit_scale",), "lr": 1e-2} | train_settings
    config = lit(data, **settings)
    return config.replace(train=config.train.replace(freeze=settings["freeze"]))


def _stirred(data: Path, **changes: object):
    """An objective whose adapters are not zero."""
    config = _lit(data, **changes)
    objective = build_objective(config, find_tokenizer(config, Dataset.open(data)), CPU)
    with torch.no_grad():
        for name, p in objective.model.named_parameters():
            if is_adapter(name):
                p.normal_(std=0.5)
    return objective


def test_the_model_starts_as_it_was_and_only_adapters_train(data):
    config = _lit(data)
    tokenizer = find_tokenizer(config, Dataset.open(data))
    adapted = build_objective(config, tokenizer, CPU)
    without = config.replace(train=config.train.replace(lora=LoraConfig(), only=()))
    bare = build_objective(without, tokenizer, CPU)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(adapted.model.embed_image(images), bare.model.embed_image(images))
    trained = {n for n, p in adapted.model.named_parameters() if p.requires_grad}
    assert {n for n in trained if not is_adapter(n)} == {"log_logit_scale"}
    assert len(trained) == 1 + 2 * 2 * 2  # two towers of one block, queries and values, A and B
    assert adapter_fact(adapted.model, ADAPTED) == "rank 2, alpha 4, on 4 linear maps: 256 numbers"
    assert adapter_fact(bare.model, ADAPTED) == ""
    again = build_objective(config, tokenizer, CPU)
    assert all(torch.equal(a, b) for a, b in zip(adapted.parameters(), again.parameters(), strict=True))


def test_merged_weights_say_the_same(data):
    model = _stirred(data).model.eval()
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    merged = plain(model)
    assert set(merged.state_dict()) == set(model.config.build(model.vocab_size).state_dict())
    torch.testing.assert_close(merged.embed_image(images), model.embed_image(images), atol=1e-5, rtol=1e-5)
    assert plain(merged) is merged


def test_a_run_leaves_plain_weights_and_an_adapter_that_peft_reads(data, tmp_path):
    import peft

    run = train(_lit(data, save_every_samples=16, keep_checkpoints=9), tmp_path / "run")
    first, last = (load_file(run / f"checkpoints/{n:012d}/model.safetensors") for n in (16, 48))
    moved = {n for n in first if not torch.equal(first[n], last[n])}
    assert all(is_adapter(n) or n == "log_logit_scale" for n in moved)
    assert len(moved) == 9
    result, newest = load(run), load(run / "checkpoints" / f"{48:012d}")
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, newest.model.state_dict()[name]), name
    assert "lora" not in " ".join(load_file(run / "model" / "model.safetensors"))
    settings = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (2, 4.0, "LORA")
    base = result.model.config.build(result.model.vocab_size)
    base.load_state_dict({n.replace(".base_layer.", "."): t for n, t in last.items() if not is_adapter(n)})
    wrapped = peft.PeftModel.from_pretrained(lora._Shell(base).model, str(run / "adapter")).eval()
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    theirs = wrapped.base_model.model.embed_image(images)
    torch.testing.assert_close(theirs, result.model.embed_image(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("extra", [{}, {"ema_decay": 0.9, "micro_batch": 6, "checkpoint_activations": True}])
def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path, monkeypatch, extra):
    config = _lit(data, save_every_samples=16, **extra)
    train(config, tmp_path / "alone")
    with monkeypatch.context() as patch:
        kill_at(patch, "_apply", 3)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    assert (tmp_path / "run/adapter/adapter_model.safetensors").read_bytes() == (
        tmp_path / "alone/adapter/adapter_model.safetensors"
    ).read_bytes()


def test_checkpoints_always_hold_the_connector(data, tmp_path):
    """LLaVA's checkpoints of a LoRA run lacked it (LLaVA #1416, #1428, #1548)."""
    config = prefix_run(data, lora=ADAPTED.replace(parts=("language",)), only=("connector",), save_every_samples=16)
    run = train(config, tmp_path / "run")
    names = [n for n, _ in load(run).model.connector.state_dict().items()]
    assert names
    for folder in (run / "model", *(run / "checkpoints").iterdir()):
        state = load_file(folder / "model.safetensors")
        assert all(f"connector.{n}" in state for n in names)
    first, last = (load_file(p / "model.safetensors") for p in sorted((run / "checkpoints").iterdir()))
    for name in first:
        trains = is_adapter(name) or name.startswith("connector.")
        assert torch.equal(first[name], last[name]) is not trains, name


def test_a_public_clip_checkpoint_is_trained_on(data, tmp_path):
    """Continued pretraining: converted weights, all frozen but for adapters in the text tower."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = Dataset.open(data).tokenizer().with_context_length(8)
    ids = {"vocab_size": words.vocab_size, "bos_token_id": words.start_id, "eos_token_id": words.end_id}
    text = vision | ids | {"max_position_embeddings": 8}
    CLIPModel(
        CLIPConfig(vision_config=vision | {"image_size": 8, "patch_size": 4}, text_config=text, projection_dim=8)
    ).save_pretrained(tmp_path / "public")
    given = convert("transformers", tmp_path / "public", tmp_path / "given", words)
    start = load(given)
    config = _lit(data, only=(), lora=LoraConfig(rank=2, parts=("text",)))
    config = config.replace(init=str(given), model=start.model.config, tokenizer=str(given))
    after = load(train(config, tmp_path / "run")).model.state_dict()
    changed = {n for n, t in start.model.state_dict().items() if not torch.equal(t, after[n])}
    assert changed == {f"text_tower.blocks.0.attention.{p}_proj.weight" for p in "qv"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": ("*.qproj",)}, "got '\\*.qproj', which names none. Their names end with: fc_1, fc_2, k_proj"),
        ({"parts": ("langage",)}, "got 'langage', which has none. There are: image_tower, text_tower"),
    ],
)
def test_what_names_nothing_is_refused(data, changes, words):
    model = _lit(data).model.build(20)
    with pytest.raises(ConfigError, match=words):
        add_adapters(model, ADAPTED.replace(**changes))


def test_what_is_frozen_by_name_gets_none(data):
    model = _lit(data).model.build(20)
    names = {n for n, _ in model.named_parameters()}
    left = target_names(model, ADAPTED, {n for n in names if n.startswith("image_tower.")})
    assert left == ["text_tower.blocks.0.attention.q_proj", "text_tower.blocks.0.attention.v_proj"]
    with pytest.raises(ConfigError, match="must leave maps to adapt"):
        add_adapters(model, ADAPTED, names)
    assert add_adapters(model, LoraConfig()) == []


def test_without_peft_it_is_said(data, monkeypatch):
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'diptych\[lora\]'"):
        add_adapters(_lit(data).model.build(20), ADAPTED)


def test_a_saved_folder_of_adapters_is_refused_nowhere(data, tmp_path):
    """A model with adapters that is saved as it is loads merged: its settings say the scale."""
    objective = _stirred(data)
    freeze(objective, (), ("log_logit_scale",))
    save_pretrained(tmp_path / "m", objective.model, find_tokenizer(_lit(data), Dataset.open(data)))
    found, merged = load(tmp_path / "m").model.state_dict(), plain(objective.model).state_dict()
    assert all(torch.equal(found[n], t) for n, t in merged.items())
