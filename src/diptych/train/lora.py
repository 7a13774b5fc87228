"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) through `peft`: what trains beside frozen linear maps.

A map W x becomes W x + (alpha / rank) B A x, with A (rank, in) drawn and B (out, rank) zero at first, so that the model
starts as it was. `peft` puts them where they belong; what is learnt is merged into plain weights by
`checkpoints/adapters.py`, without it.
"""

import importlib.util
import re
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from diptych.checkpoints.adapters import ADAPTER, adapter_scale, is_adapter, merged
from diptych.checkpoints.native import build, fill
from diptych.core.config import Config
from diptych.core.errors import ConfigError
from diptych.core.files import new_directory
from diptych.models.model import Model
from diptych.train.sharding import whole


class LoraConfig(Config):
    """Adapters beside linear maps; all else is frozen but what `train.only` names.

    rank     rows of A; 0: no adapters
    alpha    what they add is scaled by alpha / rank
    dropout  on what goes into A
    targets  patterns of the names of linear maps
    parts    modules of the model within which they are ("language", "image_tower"; "image" and "text" are the towers);
             empty: all
    """

    rank: int = Field(default=0, ge=0)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("*.q_proj", "*.v_proj")
    parts: tuple[str, ...] = ()


def target_names(model: nn.Module, config: LoraConfig, left_out: set[str]) -> list[str]:
    """Names of the linear maps that get adapters: not those whose weight is among the parameters `left_out`.

    Raises ConfigError for a part or a pattern that names none.
    """
    linears = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    inside: list[str] = []
    for part in config.parts or ("",):
        prefix = f"{part}_tower." if part in ("image", "text") else f"{part}." if part else ""
        found = [n for n in linears if n.startswith(prefix)]
        if not found:
            raise ConfigError(
                f"train.lora.parts must name parts of the model with linear maps; got {part!r}, which has none. There "
                f"are: {', '.join(sorted({n.split('.')[0] for n in linears}))}."
            )
        inside += found
    for pattern in config.targets:
        if not any(fnmatchcase(n, pattern) for n in inside):
            kinds = ", ".join(sorted({n.rpartition(".")[2] for n in inside}))
            raise ConfigError(
                f"train.lora.targets must be patterns of linear maps; got {pattern!r}, which names none. Their names "
                f"end with: {kinds}."
            )
    chosen = [n for n in inside if any(fnmatchcase(n, p) for p in config.targets)]
    return [n for n in dict.fromkeys(chosen) if f"{n}.weight" not in left_out]


def add_adapters(model: nn.Module, config: LoraConfig, left_out: set[str] | None = None) -> list[str]:
    """Put adapters into `model`, in place, and return the names of the maps that have one; nothing for rank 0.

    A is drawn from torch's generator. What trains otherwise is not changed: that is `freeze`'s.
    """
    if not config.rank:
        return []
    names = target_names(model, config, left_out or set())
    if not names:
        raise ConfigError(
            "train.lora must leave maps to adapt; all that its targets name are frozen by train.freeze. Leave that "
            "out: with LoRA everything else is frozen anyway."
        )
    trained = {n: p.requires_grad for n, p in model.named_parameters()}
    peft = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and what it imports warn of things that we do not use
        peft.inject_adapter_in_model(_settings(peft, config, names), _Shell(model))
    for name, p in model.named_parameters():
        if not is_adapter(name):
            p.requires_grad_(trained[name.replace(".base_layer.", ".")])
    return names


def plain(model: Model) -> Model:
    """`model` itself, or, where it has adapters, a copy on the CPU into whose weights they are merged."""
    scale = adapter_scale(model)
    if scale is None:
        return model
    copy = build(model.config, model.vocab_size).eval()
    fill(copy, merged({n: t.detach().cpu() for n, t in model.state_dict().items()}, scale))
    return copy


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors, whole on every process (a collective where weights are sharded); empty without any."""
    return {n: whole(t).detach() for n, t in model.state_dict().items() if is_adapter(n)}


def save_adapters(folder: Path, state: dict[str, Tensor], config: LoraConfig, base: str) -> None:
    """Write `folder` as `peft` does (adapter_model.safetensors, adapter_config.json), replacing what is there.

    `state` are whole tensors by the names of the model's state; `base` is where the weights below them come from.
    """
    from safetensors.torch import save_file

    peft = _peft()
    mine = {
        f"base_model.model.{n.replace(f'.{ADAPTER}.', '.')}": t.detach().cpu().contiguous().clone()
        for n, t in state.items()
        if is_adapter(n)
    }
    names = sorted({n.partition(".lora_")[0] for n in state if is_adapter(n)})
    with new_directory(folder) as new:
        save_file(mine, new / "adapter_model.safetensors", metadata={"format": "pt"})
        settings = _settings(peft, config, names)
        settings.target_modules, settings.inference_mode = names, True
        settings.base_model_name_or_path = base
        settings.save_pretrained(str(new))


def adapter_fact(model: nn.Module, config: LoraConfig) -> str:
    """What is said of adapters before the first step; "" if there are none."""
    count = sum(hasattr(m, "lora_A") for m in model.modules())
    if not count:
        return ""
    numbers = sum(p.numel() for n, p in model.named_parameters() if is_adapter(n))
    return f"rank {config.rank}, alpha {config.alpha:g}, on {count} linear maps: {numbers:,} numbers"


class _Shell(nn.Module):
    """Holds a model for `peft`, which would ask the model's own config for what ours does not have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def _settings(peft: Any, config: LoraConfig, names: list[str]) -> Any:
    inside = "|".join(re.escape(n) for n in names)
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"model\.(?:{inside})",  # a list would be taken for endings of names
        bias="none",
    )


def _peft() -> Any:
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "train.lora.rank must be 0 unless peft is installed; it is not. Install it: pip install 'diptych[lora]'."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
    return peft
