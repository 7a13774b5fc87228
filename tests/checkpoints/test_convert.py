"""Tests of `convert` and `convert_to`: the folder is the list of formats, and each error says what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.convert import convert, convert_to, formats, read
from diptych.checkpoints.foreign import shapes_of
from diptych.checkpoints.native import CONFIG, load, save_pretrained
from diptych.core.errors import CheckpointError, DiptychError
from diptych.models import sizes
from diptych.models.modified_resnet import ModifiedResNetConfig
from tests.checkpoints.tiny import TEXTS, assert_equal_states, clip_config, siglip_config, tokenizer, trained

CONFIGS = {"clip": clip_config(), "siglip": siglip_config()}


def save(path: Path, kind: str = "clip") -> Path:
    mine = trained(CONFIGS[kind])
    save_pretrained(path, mine.model, mine.tokenizer)
    return path


def test_the_folder_is_the_list_of_formats() -> None:
    found = formats()
    assert set(found) == {"openai", "open_clip", "torchscale", "transformers"}
    assert len(found["transformers"]) >= 5
    for module in (m for modules in found.values() for m in modules):
        assert callable(module.recognises)
        assert callable(module.read)
        assert callable(module.write)


@pytest.mark.parametrize("format,kind", [("transformers", "clip"), ("transformers", "siglip"), ("open_clip", "clip")])
def test_out_and_in_again(tmp_path: Path, format: str, kind: str) -> None:
    run = save(tmp_path / "run" / "model", kind).parent
    assert convert_to(format, run, tmp_path / "out") == tmp_path / "out"
    back = load(convert(format, tmp_path / "out", tmp_path / "back"))
    assert_equal_states(back.model.state_dict(), load(run).model.state_dict())
    assert torch.equal(back.embed_text(TEXTS), load(run).embed_text(TEXTS))
    assert json.loads((tmp_path / "back" / CONFIG).read_text())["extra"] == {"converted_from": format}


def test_by_way_of_another_library_the_weights_are_the_same(tmp_path: Path) -> None:
    run = save(tmp_path / "run")
    convert_to("open_clip", run, tmp_path / "a")
    convert("open_clip", tmp_path / "a", tmp_path / "b")
    convert_to("transformers", tmp_path / "b", tmp_path / "c")
    last = load(convert("transformers", tmp_path / "c", tmp_path / "d"))
    assert_equal_states(last.model.state_dict(), load(run).model.state_dict())


def test_a_tower_that_others_lack_is_refused_in_every_format(tmp_path: Path) -> None:
    config = clip_config(image=clip_config().image.replace(pooling="mean"))
    mine = trained(config)
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    for format in ("openai", "open_clip", "transformers"):
        with pytest.raises(CheckpointError, match=r"pooling must be .*Keep the model in diptych's own format"):
            convert_to(format, tmp_path / "run", tmp_path / "out")
    resnet = trained(clip_config(image=ModifiedResNetConfig(stem_width=4, depths=(1, 1, 1, 1))))
    save_pretrained(tmp_path / "run", resnet.model, resnet.tokenizer)
    with pytest.raises(CheckpointError, match="an image tower that it knows"):
        convert_to("transformers", tmp_path / "run", tmp_path / "out")


def test_what_is_missing_or_of_another_format_is_said(tmp_path: Path) -> None:
    run = save(tmp_path / "run")
    with pytest.raises(CheckpointError, match="one of open_clip, openai, torchscale, transformers"):
        convert("flax", run, tmp_path / "out")
    with pytest.raises(CheckpointError, match="which is not there"):
        convert("open_clip", tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"must be a checkpoint of open_clip; it is not\. No format knows it"):
        convert("open_clip", run, tmp_path / "out")
    convert_to("transformers", run, tmp_path / "hf")
    with pytest.raises(CheckpointError, match="It looks like transformers"):
        convert("open_clip", tmp_path / "hf", tmp_path / "out")


def test_a_tokenizer_can_be_brought_where_none_came_along(tmp_path: Path) -> None:
    convert_to("transformers", save(tmp_path / "run"), tmp_path / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "hf" / name).unlink()
    with pytest.raises(CheckpointError, match="must bring its tokenizer"):
        convert("transformers", tmp_path / "hf", tmp_path / "out")
    assert read("transformers", tmp_path / "hf").tokenizer is None
    back = load(convert("transformers", tmp_path / "hf", tmp_path / "out", tokenizer()))
    assert torch.equal(back.embed_text(TEXTS), load(tmp_path / "run").embed_text(TEXTS))
    with pytest.raises(CheckpointError, match="a context of 16; got"):
        convert("transformers", tmp_path / "hf", tmp_path / "other", tokenizer(12))
    with pytest.raises(CheckpointError, match="pools at, 1 "):
        convert("transformers", tmp_path / "hf", tmp_path / "other", tokenizer().replaced(end_id=3))


@pytest.mark.parametrize("name", ["small", "vit_b32", "vit_l14_336", "rn50x64", "siglip_b16"])
def test_models_of_our_published_sizes_fit_the_formats_that_have_them(name: str) -> None:
    from diptych.checkpoints import open_clip, transformers_clip, transformers_siglip

    config = getattr(sizes, name)()
    names = set(shapes_of(config, 500))
    if name.startswith("rn"):
        rules = [open_clip._rules(open_clip._check_writable(config), "")]
    elif name.startswith("siglip"):
        rules = [transformers_siglip._rules(transformers_siglip._check_writable(config))]
    else:
        rules = [open_clip._rules(open_clip._check_writable(config), "")]
        rules += [transformers_clip._rules(transformers_clip._check_writable(config))]
    for found in rules:
        assert {n for rule in found for n in rule.ours} == names


def test_the_small_convolutional_trunk_has_no_equivalent_and_this_is_said(tmp_path: Path) -> None:
    config = sizes.tiny()
    config = config.replace(image=config.image.replace(widths=(8, 8, 8, 8)), embed_dim=16, context_length=16)
    mine = trained(config)
    save_pretrained(tmp_path / "run", mine.model, mine.tokenizer)
    assert torch.equal(load(tmp_path / "run").embed_text(TEXTS), mine.embed_text(TEXTS))
    for format in formats():
        with pytest.raises(CheckpointError, match=r"that it knows .* got (ConvNet|TwoTower)"):
            convert_to(format, tmp_path / "run", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "format,name,change",
    [
        ("open_clip", "open_clip_config.json", {"model_cfg": {"embed_dim": 24}}),
        ("open_clip", "open_clip_config.json", {"model_cfg": [1]}),
        ("transformers", "config.json", {"text_config": 3}),
        ("transformers", "config.json", {"vision_config": {"hidden_size": 0}}),
        ("transformers", "config.json", {"vision_config": {"hidden_size": "wide"}}),
        ("transformers", "config.json", {"diptych": {"swapped_ids": [2, 10**9]}}),
    ],
)
def test_a_broken_configuration_is_said_in_words(
    tmp_path: Path, format: str, name: str, change: dict[str, Any]
) -> None:
    convert_to(format, save(tmp_path / "run"), tmp_path / "out")
    file = tmp_path / "out" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DiptychError, match="must"):
        read(format, tmp_path / "out")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Least of all the source, whose files may have the names of ours."""
    run = save(tmp_path / "run")
    convert_to("transformers", run, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for out in ("out", "run", "run/config.json"):
        with pytest.raises(CheckpointError, match="must go to a new place"):
            convert("transformers", tmp_path / "out", tmp_path / out)
        with pytest.raises(CheckpointError, match="must go to a new place"):
            convert_to("open_clip", run, tmp_path / out)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    (tmp_path / "empty").mkdir()
    convert("transformers", tmp_path / "out", tmp_path / "empty")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    mine = load(run)
    with pytest.raises(CheckpointError, match="holds other things"):
        save_pretrained(precious, mine.model, mine.tokenizer)
    assert (precious / "thesis.txt").exists()
    save_pretrained(run, mine.model, mine.tokenizer)  # one of ours is replaced
