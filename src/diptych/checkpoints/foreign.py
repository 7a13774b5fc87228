"""What all foreign formats share: the reply of a reader, and saying what of a model another format cannot hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from diptych.core.config import Config
from diptych.core.errors import CheckpointError
from diptych.data.tokenize import Tokenizer
from diptych.models.model import ModelConfig

End = int | Literal["highest"] | None
"""The token at which a text tower pools: an id, the highest of the row, or None where it pools at a place."""

UNCLAMPED_SCALE = 1000.0
"""`max_logit_scale` for weights trained without the clamp at 100 (SigLIP's released scales are about 110)."""

PLAIN_BLOCK = {
    "norm": "layer",
    "norm_position": "pre",
    "bias": True,
    "qk_norm": False,
    "cross_attention": "none",
}
"""The settings of our block that make it CLIP's and SigLIP's."""


class Foreign(NamedTuple):
    """A checkpoint as a reader gives it: our configuration, our tensor names, and the tokenizer if it came along."""

    config: ModelConfig
    state: dict[str, Tensor]
    tokenizer: Tokenizer | None
    end: End = None

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding, of the text tower or the language model."""
        return next(t for n, t in self.state.items() if n.endswith(".token_embed.weight")).shape[0]


def check_end(tokenizer: Tokenizer, end: End) -> None:
    """Raise a CheckpointError unless texts end with the token that the checkpoint pools at.

    Our towers pool at the last real token: the same place, if and only if the tokenizer puts that token there.
    """
    wanted = tokenizer.vocab_size - 1 if end == "highest" else end
    if wanted is not None and tokenizer.end_id != wanted:
        raise CheckpointError(
            f"the tokenizer must end texts with the token that the model pools at, {wanted} ({end!r}); got "
            f"{tokenizer.end_id}. Bring the model's own tokenizer, or mend the end token's id in its configuration."
        )


def shapes_of(config: ModelConfig, vocab_size: int) -> dict[str, torch.Size]:
    """The shape of every tensor of the model that `config` describes, without making it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return {name: tensor.shape for name, tensor in config.build(vocab_size).state_dict().items()}


def demand(config: Config, wanted: Mapping[str, Any], format_name: str) -> None:
    """Raise a CheckpointError that lists each field of `config` which is not as the format needs it."""
    wrong = [(k, getattr(config, k), v) for k, v in wanted.items() if getattr(config, k) not in _choices(v)]
    if wrong:
        shown = "; ".join(f"{k} must be {' or '.join(map(repr, _choices(v)))}, got {got!r}" for k, got, v in wrong)
        raise CheckpointError(
            f"{format_name} cannot hold this {type(config).__name__.removesuffix('Config')}: {shown}. "
            "Keep the model in diptych's own format, or train one that the format knows."
        )


def demand_kind(config: object, kinds: tuple[type, ...], format_name: str, what: str) -> None:
    """Raise a CheckpointError if `config` is of no class that the format has an equivalent of."""
    if not isinstance(config, kinds):
        known = " or ".join(k.__name__.removesuffix("Config") for k in kinds)
        got = type(config).__name__.removesuffix("Config")
        raise CheckpointError(
            f"{format_name} must be given {what} that it knows ({known}); got {got}. "
            "Keep the model in diptych's own format; diptych.load reads it everywhere."
        )


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be a JSON file; got {error}. Fetch it again.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object; got a {type(value).__name__}. Fetch it again.")
    return value


def square(value: Any, what: str) -> int:
    """A side from a number or from two equal ones."""
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1 or not all(isinstance(s, int) and s > 0 for s in sides):
        raise CheckpointError(f"{what} must be one side in pixels (squares only); got {value!r}.")
    return int(sides.pop())


def unsupported(format_name: str, what: str) -> CheckpointError:
    """The error for a checkpoint that has something which our towers do not."""
    return CheckpointError(
        f"{format_name} checkpoints must be of a kind that diptych has towers for; this one has {what}. "
        "It is not supported; nothing was converted."
    )


def _choices(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
