"""Tests of OpenAI's own files: a TorchScript archive in half precision, and state dicts, in and out."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diptych.checkpoints.convert import assemble, read
from diptych.checkpoints.openai_clip import write
from diptych.checkpoints.tokenizer_export import swap_ids
from diptych.core.errors import CheckpointError
from diptych.core.image_format import ImageFormat
from diptych.data.tokenize import Tokenizer
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.two_tower import TwoTowerConfig
from tests.checkpoints.tiny import TEXTS, TOLERANCE, assert_equal_states, clip_config, pixels, tokenizer, trained

RESNET = ModifiedResNetConfig(stem_width=8, depths=(1, 2, 1, 1))
CONFIGS = {
    "vit": clip_config(),
    "resnet": clip_config(image=RESNET, image_format=ImageFormat(resolution=64)),
}


def words() -> Tokenizer:
    """A tokenizer whose end token is its highest id, as CLIP's is."""
    plain = tokenizer()
    return swap_ids(plain, plain.end_id, plain.vocab_size - 1)


class Holder(nn.Module):
    """Parameters by dotted names, with a forward that uses two of them: all that an archive needs to be one."""

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return image.mean() * self.logit_scale + self.get_submodule("token_embedding").weight[text].mean()


def archive(state: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """`state` as OpenAI released theirs: traced, in half precision but for norms, with three numbers as buffers."""
    root = Holder()
    root.register_module("token_embedding", nn.Module())
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.register_module(parent, nn.Module())
            module = module.get_submodule(parent)
        if "running_" in leaf or leaf == "num_batches_tracked":
            module.register_buffer(leaf, tensor.clone())
        else:
            small = tensor.ndim < 2 and "in_proj" not in leaf
            module.register_parameter(
                leaf, nn.Parameter(tensor.to(torch.float32 if small else dtype), requires_grad=False)
            )
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; OpenAI's files remain
        traced = torch.jit.trace(root, (torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)))
        torch.jit.save(traced, path)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_archive_is_read_without_running_it(
    tmp_path: Path, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = trained(CONFIGS[kind], words())
    write(mine, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    archive(state, tmp_path / "ViT-B-32.pt", dtype)
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("the archive's code must not be loaded"))
    found = read("openai", tmp_path / "ViT-B-32.pt")
    assert found.config == mine.model.config
    assert found.tokenizer is None  # the vocabulary is not CLIP's
    assert {t.dtype for t in found.state.values()} <= {torch.float32, torch.int64}
    expected = {n: t.to(dtype).float() if t.ndim > 1 else t for n, t in mine.model.state_dict().items()}
    back = assemble(found, words())
    if dtype == torch.float32:
        assert_equal_states(back.model.state_dict(), mine.model.state_dict())
    for name, tensor in back.model.state_dict().items():
        if tensor.ndim > 1:
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_state_dict_there_and_back_is_equal_to_the_byte(tmp_path: Path, kind: str) -> None:
    mine = trained(CONFIGS[kind], words())
    write(mine, tmp_path / "a.pt")
    found = read("openai", tmp_path / "a.pt")
    assert_equal_states(found.state, dict(mine.model.state_dict()))
    write(assemble(found, words()), tmp_path / "b.pt")
    a, b = (torch.load(tmp_path / n, weights_only=True) for n in ("a.pt", "b.pt"))
    assert_equal_states(a, b)


@pytest.mark.parametrize("kind", CONFIGS)
def test_open_clips_own_reader_of_openai_files_agrees(tmp_path: Path, kind: str) -> None:
    """It builds the model from the state dict as OpenAI's code does; the features must be equal."""
    model = pytest.importorskip("open_clip.model")
    mine = trained(CONFIGS[kind], words())
    write(mine, tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    theirs = model.build_model_from_openai_state_dict(state, cast_dtype=torch.float32)
    theirs = theirs.float()
    halved = {n: t.half().float() if t.is_floating_point() else t for n, t in mine.model.state_dict().items()}
    images = pixels(3, mine.model.config.image_format.resolution)
    tokens, lengths = words().batch(TEXTS)
    wide = torch.nn.functional.pad(tokens, (0, 16 - tokens.shape[1]))
    with torch.no_grad():
        image, text = theirs.encode_image(mine.model.normalise(images)), theirs.encode_text(wide)
    # their loader rounds matrices to half precision; ours, rounded alike, must agree to fp32's last digits
    own = mine.model.state_dict()
    mine.model.load_state_dict({n: halved[n] if _halved(n, own[n], theirs) else own[n] for n in own})
    with torch.no_grad():
        torch.testing.assert_close(mine.model.text_tower(tokens, lengths), text, **TOLERANCE)
        torch.testing.assert_close(mine.model.image_tower(mine.model.normalise(images)), image, **TOLERANCE)


def _halved(name: str, tensor: Tensor, theirs: nn.Module) -> bool:
    """Whether OpenAI keeps a tensor in half precision: all of convolutions, linear maps and projections."""
    single = ("norm", "embed", "cls_token", "logit_scale", "shortcut_norm")
    if name.endswith("patch_embed.weight"):
        return True
    return not any(part in name for part in single)


def test_clips_own_vocabulary_brings_clips_own_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    config = clip_config()
    mine = trained(config, Tokenizer.clip(16))
    write(mine, tmp_path / "a.pt")
    found = read("openai", tmp_path / "a.pt")
    assert found.tokenizer is not None
    assert found.tokenizer.batch(TEXTS)[0].tolist() == mine.tokenizer.batch(TEXTS)[0].tolist()
    assert found.config.context_length == 16


def test_what_clip_has_no_place_for_is_said(tmp_path: Path) -> None:
    config = clip_config()

    def refuse(changed: TwoTowerConfig, message: str, vocabulary: Tokenizer | None = None) -> None:
        with pytest.raises(CheckpointError, match=message):
            write(trained(changed, vocabulary or words()), tmp_path / "out.pt")
        assert not (tmp_path / "out.pt").exists()

    refuse(config.replace(image=config.image.replace(activation="gelu")), "activation must be 'quick_gelu'")
    refuse(config.replace(text=config.text.replace(heads=2)), "heads must be 1, got 2")
    refuse(config.replace(image_format=ImageFormat(resolution=32, resize="squash")), "image_format must be")
    refuse(config, "end token is its highest id", tokenizer())


def test_what_is_no_clip_is_said_in_words(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"has no 'token_embedding\.weight'"):
        read("openai", tmp_path / "a.pt")
    mine = trained(config := clip_config(), words())
    assert config.embed_dim == 24
    write(mine, tmp_path / "b.pt")
    state = torch.load(tmp_path / "b.pt", weights_only=True)
    torch.save({n: t for n, t in state.items() if not n.startswith("visual.")}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"neither 'visual\.proj'"):
        read("openai", tmp_path / "c.pt")
