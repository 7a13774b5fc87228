"""Tests against diffusers' PriorTransformer: answers and gradients from random weights, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints.diffusers_prior import build_prior, prior_state, read_prior, their_prior_state, write_prior
from diptych.core.errors import CheckpointError
from tests.checkpoints.test_diffusers_denoisers import TIMES, check, settings_of
from tests.checkpoints.tiny import assert_equal_states, randomise

diffusers = pytest.importorskip("diffusers")

SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "embedding_dim": 12, "num_embeddings": 6}


def theirs(**changes: Any) -> Any:
    model = diffusers.PriorTransformer(**{**SMALL, **changes}).eval()
    randomise(model)
    return model


def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    noised, vector = torch.randn(3, 12, generator=g), torch.randn(3, 12, generator=g)
    return noised, vector, torch.randn(3, 6, 12, generator=g), torch.tensor([6, 2, 4])


def test_it_answers_as_theirs_does() -> None:
    model = theirs()
    mine = build_prior(settings_of(model))
    mine.load_state_dict(prior_state(mine, model.state_dict()))
    noised, vector, words, lengths = inputs()
    real = torch.arange(6) < lengths[:, None]
    out = model(noised, TIMES, vector, words, real).predicted_image_embedding
    block = model.transformer_blocks[0]
    gradients = {
        "text_in.weight": model.encoder_hidden_states_proj.weight,
        "vector_in.bias": model.embedding_proj.bias,
        "time_embed.fc_1.weight": model.time_embedding.linear_1.weight,
        "position_embed": model.positional_embedding,
        "query": model.prd_embedding,
        "blocks.0.attention.q_proj.weight": block.attn1.to_q.weight,
        "head.weight": model.proj_to_clip_embeddings.weight,
    }
    check(mine(noised, TIMES.float(), words, lengths, vector), out, mine, gradients)


def test_without_a_mask_of_the_text_theirs_is_not_causal() -> None:
    """The paper's prior is causal. Theirs adds its causal mask only where a mask of the text is given: without one a
    token sees those behind it, so that whole texts must be given with a mask of ones."""
    model = theirs()
    mine = build_prior(settings_of(model))
    mine.load_state_dict(prior_state(mine, model.state_dict()))
    noised, vector, words, _ = inputs()
    with torch.no_grad():
        ours = mine(noised, TIMES.float(), words, torch.full((3,), 6), vector)
        ones = model(noised, TIMES, vector, words, torch.ones(3, 6)).predicted_image_embedding
        none = model(noised, TIMES, vector, words).predicted_image_embedding
    torch.testing.assert_close(ours, ones, atol=2e-5, rtol=1e-4)
    assert (ours - none).abs().max() > 0.01


def test_there_and_back_is_equal_to_the_byte(tmp_path: Path) -> None:
    model = theirs()
    model.save_pretrained(tmp_path / "theirs")
    mine = read_prior(tmp_path / "theirs")
    assert_equal_states(their_prior_state(mine), dict(model.state_dict()))
    write_prior(mine, tmp_path / "back", json.loads((tmp_path / "theirs" / "config.json").read_text()))
    back = diffusers.PriorTransformer.from_pretrained(tmp_path / "back")
    assert_equal_states(dict(back.state_dict()), dict(model.state_dict()))


def test_what_has_no_place_is_said() -> None:
    for changes, words in (
        ({"norm_in_type": "layer"}, "norm_in_type='layer'"),
        ({"_class_name": "UNet"}, "where PriorTransformer is wanted"),
    ):
        with pytest.raises(CheckpointError, match=words):
            build_prior({**settings_of(theirs()), **changes})
