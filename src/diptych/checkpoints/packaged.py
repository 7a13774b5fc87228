"""Packaged weights (`models/packaged.py`) into the towers that name them, every tensor of both sides accounted for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diptych.checkpoints.key_map import Rule, same, to_ours
from diptych.checkpoints.weights import read_weights
from diptych.core.errors import CheckpointError, ConfigError
from diptych.core.progress import say
from diptych.models.efficientnet import EfficientNet
from diptych.models.packaged import PREFIX, packaged, packaged_files
from diptych.models.text_transformer import TextTransformer

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
FRESH = "projection."
"""What no package holds: the map into the shared space is drawn anew."""


def load_packaged(model: nn.Module) -> None:
    """Fill each tower inside `model` whose settings name packaged weights; its projection stays as it is.

    For fresh models: a checkpoint brings its own weights. Raises ConfigError where tower and weights do not agree.
    """
    for path, module in model.named_modules():
        name = str(getattr(getattr(module, "config", None), "pretrained", "") or "")
        if not name:
            continue
        what = packaged(name)
        with packaged_files(name) as folder:
            state = read_weights(folder / what.weights)
        if isinstance(module, EfficientNet) and what.image_format is not None:
            found = efficientnet_state(module, state, name)
        elif isinstance(module, TextTransformer) and what.image_format is None:
            found = bert_state(module, state, name)
        else:
            raise ConfigError(
                f"{path}.pretrained must name weights of its own kind of tower; got {name!r}. Leave it empty, or "
                "change the tower."
            )
        own = {n: t for n, t in module.state_dict().items() if n.startswith(FRESH)}
        module.load_state_dict({**found, **own})
        say(f"{path}: weights of {what.package.label} ({what.licence})")


def efficientnet_state(tower: EfficientNet, theirs: Mapping[str, Tensor], name: str = "") -> dict[str, Tensor]:
    """The tensors of an EfficientNet tower, without its projection, from PyTorch's port of the Lite models.

    Its classifier is left out. Raises ConfigError where the tower has not the settings of the weights.
    """
    rules = [*_conv_norm("stem", "_conv_stem", "_bn0"), *_conv_norm("head", "_conv_head", "_bn1")]
    for i, block in enumerate(tower.blocks):
        ours, other = f"blocks.{i}", f"_blocks.{i}"
        if block.expand is not None:
            rules += _conv_norm(f"{ours}.expand", f"{other}._expand_conv", f"{other}._bn0")
        rules += _conv_norm(f"{ours}.depthwise", f"{other}._depthwise_conv", f"{other}._bn1")
        rules += _conv_norm(f"{ours}.project", f"{other}._project_conv", f"{other}._bn2")
    return _mapped(tower, rules, theirs, r"^_fc\.", name)


def bert_state(tower: TextTransformer, theirs: Mapping[str, Tensor], name: str = "") -> dict[str, Tensor]:
    """The tensors of a text tower of BERT's kind, without its projection, from transformers' names.

    The embedding of the first kind of segment, which every token has here, is added to the positions; positions beyond
    the tower's context are left out. Raises ConfigError where the tower has not the settings of the weights.
    """
    state = {n.removeprefix("bert."): t for n, t in theirs.items()}
    vocabulary, positions = state.get("embeddings.word_embeddings.weight"), "embeddings.position_embeddings.weight"
    if vocabulary is None or positions not in state or "embeddings.token_type_embeddings.weight" not in state:
        raise ConfigError(f"{name or 'the weights'} must be of BERT's kind; they lack its embeddings.")
    if len(vocabulary) != tower.token_embed.num_embeddings:
        raise ConfigError(
            f"tokenizer must be that of the pretrained text tower, of {len(vocabulary):,} tokens; got one of "
            f"{tower.token_embed.num_embeddings:,}. Set tokenizer={PREFIX}{name}."
        )
    if tower.context_length > len(state[positions]):
        raise ConfigError(
            f"model.context_length must be at most {len(state[positions])}, for which the pretrained text tower has "
            f"positions; got {tower.context_length}. Lower it."
        )
    kind = state.pop("embeddings.token_type_embeddings.weight")[0].float()
    state[positions] = state[positions][: tower.context_length].float() + kind
    rules = [
        Rule(("token_embed.weight",), "embeddings.word_embeddings.weight"),
        Rule(("position_embed",), positions),
        *same([("norm_pre", "embeddings.LayerNorm")]),
    ]
    for i in range(len(tower.blocks)):
        rules += bert_block(f"blocks.{i}", f"encoder.layer.{i}")
    pooler = tower.pooler is not None
    rules += same([("pooler", "pooler.dense")]) if pooler else []
    return _mapped(tower, rules, state, r"position_ids$" + ("" if pooler else r"|^pooler\."), name)


def bert_block(ours: str, theirs: str) -> list[Rule]:
    """One post-norm block: our names and those of transformers' BERT."""
    pairs = [(f"{ours}.attention.{n[0]}_proj", f"{theirs}.attention.self.{n}") for n in ("query", "key", "value")]
    pairs += [
        (f"{ours}.attention.out_proj", f"{theirs}.attention.output.dense"),
        (f"{ours}.norm_1", f"{theirs}.attention.output.LayerNorm"),
        (f"{ours}.mlp.fc_1", f"{theirs}.intermediate.dense"),
        (f"{ours}.mlp.fc_2", f"{theirs}.output.dense"),
        (f"{ours}.norm_2", f"{theirs}.output.LayerNorm"),
    ]
    return same(pairs)


def _conv_norm(ours: str, conv: str, norm: str) -> list[Rule]:
    return [Rule((f"{ours}.conv.weight",), f"{conv}.weight"), *same([(f"{ours}.norm", norm)], NORM)]


def _mapped(
    tower: nn.Module, rules: list[Rule], theirs: Mapping[str, Tensor], ignore: str, name: str
) -> dict[str, Tensor]:
    shapes: dict[str, torch.Size] = {n: t.shape for n, t in tower.state_dict().items() if not n.startswith(FRESH)}
    try:
        return to_ours(rules, theirs, shapes, ignore)
    except CheckpointError as error:
        raise ConfigError(
            f"a tower with pretrained={name!r} must have the settings of those weights (models.packaged lists them); "
            f"{error}"
        ) from None
