"""The prior of unCLIP as Hugging Face diffusers keeps it (`PriorTransformer`, Karlo's weights): config.json and
diffusion_pytorch_model.safetensors, the `prior` of a pipeline. Its CLIP is another folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from diptych.checkpoints.diffusers_denoisers import CONFIG, WEIGHTS, attention_rules, demand_settings
from diptych.checkpoints.foreign import read_object, unsupported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.weights import read_all
from diptych.core.files import new_directory, write_json
from diptych.nn.block import BlockConfig
from diptych.nn.prior_transformer import EXTRA, PriorTransformer

NAME = "PriorTransformer"


def read_prior(path: Path) -> PriorTransformer:
    """The prior in a folder, with its weights. Raises CheckpointError for what ours has no place for."""
    found = build_prior(read_object(path / CONFIG))
    found.load_state_dict(prior_state(found, read_all([path / WEIGHTS])))
    return found


def build_prior(settings: Mapping[str, Any]) -> PriorTransformer:
    """A prior with fresh weights, of the kind that their settings describe."""
    s = dict(settings)
    if s.get("_class_name") != NAME:
        raise unsupported("diffusers", f"_class_name {s.get('_class_name')!r} where {NAME} is wanted")
    width, e = s["num_attention_heads"] * s["attention_head_dim"], s["embedding_dim"]
    demand_settings(
        s,
        {
            "additional_embeddings": EXTRA,
            "time_embed_act_fn": "silu",
            "norm_in_type": None,
            "embedding_proj_norm_type": None,
            "encoder_hid_proj_type": "linear",
            "added_emb_type": "prd",
            "time_embed_dim": (None, width),
            "embedding_proj_dim": (None, e),
            "clip_embed_dim": (None, e),
        },
    )
    block = BlockConfig(width=width, depth=s["num_layers"], heads=s["num_attention_heads"])
    return PriorTransformer(block, s["num_embeddings"], e, e)


def prior_state(prior: PriorTransformer, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors from theirs."""
    return to_ours(_rules(prior), theirs, {n: t.shape for n, t in prior.state_dict().items()})


def their_prior_state(prior: PriorTransformer) -> dict[str, Tensor]:
    """Their tensors from ours."""
    return to_theirs(_rules(prior), prior.state_dict())


def write_prior(prior: PriorTransformer, path: Path, settings: Mapping[str, Any]) -> None:
    """Write a folder that diffusers loads. `settings` are theirs, as they were read."""
    with new_directory(path) as folder:
        save_file(their_prior_state(prior), folder / WEIGHTS, metadata={"format": "pt"})
        write_json(folder / CONFIG, dict(settings))


def _rules(prior: PriorTransformer) -> list[Rule]:
    places, width = prior.position_embed.shape
    rules = same(
        [
            ("text_in", "encoder_hidden_states_proj"),
            ("vector_in", "embedding_proj"),
            ("noised_in", "proj_in"),
            ("norm_final", "norm_out"),
            ("head", "proj_to_clip_embeddings"),
        ]
    )
    rules += same([(f"time_embed.fc_{i}", f"time_embedding.linear_{i}") for i in (1, 2)])
    rules += [
        Rule(("position_embed",), "positional_embedding", shape=(1, places, width)),
        Rule(("query",), "prd_embedding", shape=(1, 1, width)),
        Rule(("mean",), "clip_mean", shape=(1, prior.embed_dim)),
        Rule(("std",), "clip_std", shape=(1, prior.embed_dim)),
    ]
    for n in range(prior.config.depth):
        us, them = f"blocks.{n}", f"transformer_blocks.{n}"
        pairs = [("norm_1", "norm1"), ("norm_2", "norm3"), ("mlp.fc_1", "ff.net.0.proj"), ("mlp.fc_2", "ff.net.2")]
        rules += same([(f"{us}.{a}", f"{them}.{b}") for a, b in pairs])
        rules += attention_rules(f"{us}.attention", f"{them}.attn1")
    return rules
