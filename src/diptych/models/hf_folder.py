"""Parts that Hugging Face transformers computes: any model in a local folder of its kind, by its own code.

Nothing is downloaded, no code of a folder is run, and weights are read from safetensors alone. A folder's settings are
copied into ours when it is named, so that what was trained loads where the folder is not. Its weights are put in when a
run begins (`fill_from_folders`): a checkpoint brings its own.
"""

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from diptych.core.config import Config
from diptych.core.errors import CheckpointError, ConfigError
from diptych.core.progress import say

UNUSED = ("_name_or_path", "transformers_version", "auto_map", "torch_dtype", "dtype", "architectures")
"""What of a config.json says nothing of the function."""


class HFFolderConfig(Config):
    """What is taken from a folder.

    path       a folder with config.json and safetensors; empty: fresh weights, as `settings` say
    settings   the folder's config.json, as JSON text. Dropout is set to 0: packed and padded rows are to be alike
    read_from  which folder `settings` are of; not to be set
    """

    abstract: ClassVar[bool] = True
    path: str = ""
    settings: str = Field(default="{}")
    read_from: str = ""

    @model_validator(mode="before")
    @classmethod
    def _with_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("path") or values.get("read_from") == values["path"]:
            return values
        return {**values, "settings": read_settings(values["path"]), "read_from": values["path"]}

    def theirs(self, **changes: Any) -> Any:
        """The transformers config. `changes` are set if they are known there and the weights are fresh."""
        given = json.loads(self.settings)
        kind = given.pop("model_type", None)
        config = _config_of(kind, given)
        if not self.path:
            for name, value in changes.items():
                if hasattr(config, name):
                    setattr(config, name, value)
        return config


class HFPart(nn.Module):
    """A part of ours around transformers' `backbone`. `lm_head`: its map to logits, where there is one of its own.

    awaits   whether its weights are in a folder still
    """

    backbone: nn.Module
    lm_head: nn.Module | None

    def __init__(self, config: HFFolderConfig, auto: str) -> None:
        super().__init__()
        self._folder, self._auto, self.awaits = config, auto, bool(config.path)
        self.lm_head = None
        self.register_load_state_dict_post_hook(_filled)

    def adopt(self, config: Any) -> Any:
        """Their model with fresh weights, as `config` says."""
        try:
            return getattr(_transformers(), self._auto).from_config(config)
        except (ValueError, TypeError, ImportError, AttributeError) as error:
            raise ConfigError(
                f"{type(self).__name__} must be given settings that transformers has a model for; got "
                f"{config.model_type!r}: {_first(error)}. Name another folder."
            ) from None

    def fill(self) -> None:
        """Put the folder's weights in. Raises CheckpointError where they are not all there."""
        path = Path(self._folder.path)
        if not path.is_dir():
            raise CheckpointError(
                f"the weights of a {type(self).__name__} must be in a folder; {path} is not there. Name it anew, or "
                "start from a checkpoint."
            )
        loader = getattr(_transformers(), self._auto)
        local = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
        try:
            theirs, said = loader.from_pretrained(
                str(path), config=self._folder.theirs(), dtype=torch.float32, output_loading_info=True, **local
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise CheckpointError(
                f"{path} must hold whole weights as safetensors, for which transformers has the code; got "
                f"{_first(error)}. Save the model anew with save_pretrained."
            ) from None
        lacks = sorted({*said["missing_keys"], *(str(k) for k in said.get("mismatched_keys", ()))})
        if lacks:
            raise CheckpointError(
                f"{path} must hold every tensor that its config.json calls for; missing: {', '.join(lacks[:4])}. "
                "It is not a folder of such a model, or not whole."
            )
        self.backbone.load_state_dict(inside(theirs).state_dict())
        if self.lm_head is not None:
            self.lm_head.load_state_dict(theirs.get_output_embeddings().state_dict())
        self.awaits = False

    def check_filled(self, x: Tensor) -> None:
        """Raise a CheckpointError if the weights of the folder were never put in."""
        if self.awaits and x.device.type != "meta":
            raise CheckpointError(
                f"the weights of {self._folder.path} must be put in before it is used; they were not. Call "
                "diptych.models.hf_folder.fill_from_folders(model), or load a checkpoint."
            )


def fill_from_folders(model: nn.Module, fresh: bool = True) -> None:
    """Put in the weights of each part whose folder was named and that nothing has filled yet; not `fresh`: leave that
    to a checkpoint, which will."""
    for name, module in model.named_modules():
        if isinstance(module, HFPart) and module.awaits and not fresh:
            module.awaits = False
        elif isinstance(module, HFPart) and module.awaits:
            module.fill()
            say(f"  {name} begins as {module._folder.path}: {sum(p.numel() for p in module.parameters()):,} numbers")


def inside(model: Any) -> nn.Module:
    """Their model without its head."""
    found = getattr(model, model.base_model_prefix, model) if model.base_model_prefix else model
    assert isinstance(found, nn.Module)
    return found


def blocks_of(backbone: nn.Module, depth: int) -> nn.ModuleList:
    """The list of their blocks, which may then be computed again, compiled and sharded as ours are."""
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            for block in module:
                setattr(type(block), "recomputable", True)  # noqa: B010  # a class of theirs, which knows no such thing
            return module
    raise ConfigError(
        f"a transformers model must keep its {depth} blocks in one list; {type(backbone).__name__} does not. Name a "
        "folder of another kind."
    )


def read_settings(path: str) -> str:
    """A folder's config.json as compact JSON text without what does not belong to the function.

    Raises ValueError, for a config's validator, where there is none.
    """
    file = Path(path) / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"path must be a local folder of a transformers model, with config.json; got {path}: {error}. Nothing is "
            "downloaded: save the model there with save_pretrained."
        ) from None
    if not isinstance(found, dict) or "model_type" not in found:
        raise ValueError(f"{file} must name a model_type, as transformers writes it; it does not. Save the model anew.")
    return json.dumps(_plain(found), sort_keys=True, separators=(",", ":"))


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in settings.items():
        if name in UNUSED:
            continue
        drops = isinstance(value, float) and ("drop" in name or name.endswith("_pdrop"))
        kept[name] = 0.0 if drops else _plain(value) if isinstance(value, dict) else value
    return kept


def _config_of(kind: str | None, settings: dict[str, Any]) -> Any:
    try:
        return _transformers().AutoConfig.for_model(kind, **settings)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"settings must be a config.json that transformers knows; got model_type {kind!r}: {_first(error)}. Name "
            "another folder."
        ) from None


def _transformers() -> Any:
    try:
        found = importlib.import_module("transformers")
        found.AutoConfig  # noqa: B018  # it imports lazily, and what it wants may be broken
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"a part from a folder of transformers must find transformers installed; got {_first(error)}. Install it: "
            "pip install 'diptych[transformers]'."
        ) from None
    return found


def _filled(module: nn.Module, keys: Any) -> None:
    assert isinstance(module, HFPart)
    module.awaits = False


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:300]
