"""Diptych's own model folder: model.safetensors, config.json, the tokenizer, and a fingerprint of the three together.

`load` accepts a run, its `model` folder, one of its checkpoints, or a converted folder, and refuses weights that do not
belong to their configuration or tokenizer rather than misreading them.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diptych.checkpoints.adapters import adapter_scale, merged
from diptych.checkpoints.key_map import check_shapes
from diptych.checkpoints.sharded import SHARDS, check_digests, read_shards, stored
from diptych.core.config import from_dict, to_dict
from diptych.core.errors import CheckpointError, ConfigError
from diptych.core.files import new_directory, write_json
from diptych.core.progress import say
from diptych.data.tokenize import Tokenizer
from diptych.models.model import Model, ModelConfig
from diptych.models.pretrained import Pretrained
from diptych.nn.embed import resize_position_embed

FORMAT = "diptych"
FORMAT_VERSION = 1
WEIGHTS, EMA, CONFIG, FINGERPRINT = "model.safetensors", "ema.safetensors", "config.json", "fingerprint.json"

Weights = Literal["auto", "ema", "raw"]
"""Which of a folder's weights: their moving average where there is one ("auto"), only that, or never that."""


def save_pretrained(
    path: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    extra: Mapping[str, Any] | None = None,
    ema: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a model folder, whole or not at all, and return its fingerprint.

    `extra` are JSON values that `config.json` keeps beside the configuration (samples_seen, where weights come from).
    `ema` are the moving averages of the weights, by the names of `model.state_dict()`.
    """
    path = Path(path)
    if path.exists() and not (path / FINGERPRINT).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(
            f"a model folder must be new, empty, or a model that diptych wrote, which is replaced; {path} holds other "
            "things. Name another folder."
        )
    with new_directory(path) as folder:
        return write_model(folder, model, tokenizer, extra, ema)


def write_model(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    extra: Mapping[str, Any] | None = None,
    ema: Mapping[str, Tensor] | None = None,
) -> str:
    """Write the files of `save_pretrained` into a folder that is there already (a checkpoint being made)."""
    folder = Path(folder)
    state = _on_cpu(model.state_dict())
    save_file(state, folder / WEIGHTS)
    if ema is not None:
        averaged = _on_cpu(ema)
        check_shapes(averaged, {name: tensor.shape for name, tensor in state.items()})
        save_file(averaged, folder / EMA)
    shared = _fingerprint_of_settings(_write_settings(folder, model, tokenizer, extra), folder)
    prints = {"fingerprint": fingerprint(state, shared)}
    if ema is not None:
        prints["fingerprint_ema"] = fingerprint(averaged, shared)
    write_json(folder / FINGERPRINT, prints)
    return prints["fingerprint"]


def write_model_around(
    folder: Path, model: Model, tokenizer: Tokenizer, digests: Mapping[str, str], extra: Mapping[str, Any] | None = None
) -> None:
    """Make a model folder of one whose weights lie in `SHARDS` already, with the SHA-256 of each file there.

    The shards hold "model/NAME" for each tensor, and "ema/NAME" where there is an average.
    """
    _write_settings(folder, model, tokenizer, extra)
    write_json(folder / FINGERPRINT, {SHARDS: dict(digests)})


def load(
    path: str | Path, device: str | torch.device = "cpu", resolution: int | None = None, weights: Weights = "auto"
) -> Pretrained:
    """The model of a run (RUN, RUN/model, RUN/checkpoints/N) or of a converted folder, ready to embed and score.

    `resolution`: use images of another side than the model was trained with; position embeddings are interpolated.
    `weights`: the moving average of the weights where there is one ("auto"), only that ("ema"), or never that ("raw").
    Raises CheckpointError where files are missing, were changed since they were written, or do not fit each other.
    """
    folder = find_model(Path(path))
    settings = _settings(folder)
    config = _config(settings, folder)
    state, found = _weights(folder, settings, weights)
    if "adapter_scale" in settings:
        state = merged(state, settings["adapter_scale"])
    tokenizer = Tokenizer.load(folder)
    if resolution is not None and resolution != config.image_format.resolution:
        config = config.replace(image_format=config.image_format.replace(resolution=resolution))
    model = build(config, settings["vocab_size"])
    if resolution is not None:
        state = resize_positions(state, model)
    if tokenizer.vocab_size > model.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer must have at most the model's {model.vocab_size} tokens; got "
            f"{tokenizer.vocab_size}. It is another model's tokenizer; restore the one saved with the weights."
        )
    fill(model, state)
    return Pretrained(model.to(device), tokenizer, fingerprint=found, name=_name(Path(path)))


def model_config(folder: str | Path) -> ModelConfig:
    """The configuration of the model in a folder that `find_model` returned."""
    return _config(_settings(Path(folder)), Path(folder))


def build(config: ModelConfig, vocab_size: int) -> Model:
    """The model that a configuration describes, its weights to be filled. Torch's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        return config.build(vocab_size)


def fill(model: Model, state: Mapping[str, Tensor]) -> None:
    """Put tensors into a model. Raises CheckpointError that names what is missing, unknown or of another shape."""
    check_shapes(state, {name: tensor.shape for name, tensor in model.state_dict().items()})
    model.load_state_dict(dict(state))


def fingerprint(state: Mapping[str, Tensor], settings: str = "") -> str:
    """32 hex digits of a hash of every tensor (name, type, shape, bytes) and of `settings`."""
    h = hashlib.sha256(settings.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        h.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        h.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest()[:32]


def resize_positions(state: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """`state` with the image tower's position embeddings interpolated to the size that `model` has.

    Bicubic and antialiased on the grid, as open_clip does it; the extra first row (CLS, pooled mean) is kept as it is.
    """
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    resized = dict(state)
    for name, tensor in state.items():
        shape = wanted.get(name)
        if name.startswith("image_tower.") and name.endswith("position_embed") and shape and tensor.shape != shape:
            resized[name] = _resize_grid(tensor, shape, name)
    return resized


def find_model(path: Path) -> Path:
    """The folder that holds the model files: `path` itself, its `model`, or the newest of its `checkpoints`."""
    if not path.exists():
        raise CheckpointError(f"a model must be a folder; got {path}, which is not there. Check the path.")
    for folder in (path, path / "model"):
        if _has_weights(folder) and (folder / CONFIG).is_file():
            return folder
    steps = [p for p in (path / "checkpoints").glob("*") if p.name.isdigit() and _has_weights(p)]
    if steps:
        newest = max(steps, key=lambda p: int(p.name))
        say(f"{path} has no finished model; using its newest checkpoint, of {int(newest.name):,} samples.")
        return newest
    raise CheckpointError(
        f"a model folder must hold {WEIGHTS} and {CONFIG}; {path} does not. Name a run, its model folder, one of its "
        "checkpoints, or convert a foreign checkpoint first: diptych convert open_clip|openai|transformers PATH OUT."
    )


def _has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() or (folder / SHARDS).is_dir()


def _write_settings(
    folder: Path, model: Model, tokenizer: Tokenizer, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "vocab_size": model.vocab_size,
        "model": to_dict(model.config),
        "extra": dict(extra or {}),
    }
    scale = adapter_scale(model)
    if scale is not None:
        config["adapter_scale"] = scale
    write_json(folder / CONFIG, config)
    tokenizer.save(folder)
    return config


def _weights(folder: Path, settings: dict[str, Any], weights: Weights) -> tuple[dict[str, Tensor], str]:
    """The tensors wanted, as they were written, and their fingerprint."""
    if (folder / SHARDS).is_dir():
        return _join(folder, settings, weights)
    has_ema = (folder / EMA).is_file()
    file = EMA if _wants_ema(folder, has_ema, weights) else WEIGHTS
    state = _read(folder / file)
    return state, _verify(folder, state, settings, "fingerprint_ema" if file == EMA else "fingerprint")


def _join(folder: Path, settings: dict[str, Any], weights: Weights) -> tuple[dict[str, Tensor], str]:
    """The same from what several processes have written; their digests vouch for it."""
    digests = _prints(folder, SHARDS)
    check_digests(folder / SHARDS, digests)
    there = stored(folder / SHARDS)
    has_ema = any(name.startswith("ema/") for name in there)
    part = "ema" if _wants_ema(folder, has_ema, weights) else "model"
    if "adapter_scale" in settings:  # names are not those of the plain model
        found = {n.removeprefix(f"{part}/"): e for n, e in there.items() if n.startswith(f"{part}/")}
        wanted = {n: torch.empty(e.shape, dtype=e.dtype) for n, e in found.items()}
    else:
        wanted = build(_config(settings, folder), settings["vocab_size"]).state_dict()
    read_shards(folder / SHARDS, {f"{part}/{n}": t for n, t in wanted.items()})
    return wanted, fingerprint(wanted, _fingerprint_of_settings(settings, folder))


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Own contiguous copies: safetensors refuses tensors that share memory."""
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in state.items()}


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / CONFIG).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{folder / CONFIG} must be JSON; got {error}. Restore it from a copy.") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        kind = settings.get("model_type") if isinstance(settings, dict) else None
        hint = (
            f"It looks like a transformers {kind} model: diptych convert transformers {folder} OUT."
            if kind
            else ("Convert it first: diptych convert open_clip|openai|transformers PATH OUT.")
        )
        raise CheckpointError(f"{folder} must be a model that diptych wrote; it is not. {hint}")
    if settings.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} must have format_version {FORMAT_VERSION}; got {settings.get('format_version')!r}. "
            "Use the version of diptych that wrote it, or a newer one."
        )
    return settings


def _config(settings: dict[str, Any], folder: Path) -> ModelConfig:
    try:
        config = from_dict(settings["model"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG} must describe a model; got {error}") from None
    if not isinstance(config, ModelConfig):
        raise CheckpointError(f"{folder / CONFIG} must describe a model; got a {type(config).__name__}.")
    return config


def _wants_ema(folder: Path, has_ema: bool, weights: Weights) -> bool:
    if weights == "ema" and not has_ema:
        raise CheckpointError(f"{folder} must hold {EMA} for weights='ema'; it does not. Use weights='raw'.")
    return has_ema and weights != "raw"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be a whole safetensors file; got {error}. Restore it from a copy."
        ) from None


def _verify(folder: Path, state: Mapping[str, Tensor], settings: dict[str, Any], key: str) -> str:
    """The fingerprint of what was read, which must be the one that was written."""
    found = fingerprint(state, _fingerprint_of_settings(settings, folder))
    written = _prints(folder, key)
    if found != written:
        raise CheckpointError(
            f"{folder} must be as it was written ({key} {written}); got {found}: its weights, configuration or "
            "tokenizer were changed since, and would be misread. Restore the folder from a copy."
        )
    return found


def _prints(folder: Path, key: str) -> Any:
    try:
        return json.loads((folder / FINGERPRINT).read_text())[key]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{folder / FINGERPRINT} must hold the model's {key}; it does not. Restore it from a copy."
        ) from None


def _fingerprint_of_settings(settings: dict[str, Any], folder: Path) -> str:
    """What besides the weights decides the embeddings: configuration, vocabulary size and tokenizer files."""
    decides = [settings.get("model"), settings.get("vocab_size")]
    decides += [settings["adapter_scale"]] if "adapter_scale" in settings else []
    h = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        h.update(f"\0{name}\0".encode() + (file.read_bytes() if file.is_file() else b""))
    return h.hexdigest()


def _resize_grid(tensor: Tensor, shape: torch.Size, name: str) -> Tensor:
    above = tensor.shape[0] - 1
    prefix = 1 if above and math.isqrt(above) ** 2 == above else 0
    side = math.isqrt(shape[0] - prefix)
    if side**2 + prefix != shape[0] or math.isqrt(tensor.shape[0] - prefix) ** 2 + prefix != tensor.shape[0]:
        raise CheckpointError(
            f"{name} must cover a square grid to be interpolated; got {tensor.shape[0]} rows for {shape[0]}. "
            "Choose a resolution that the patch size divides."
        )
    return resize_position_embed(tensor, (side, side), prefix=prefix)


def _name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == "model" else path.name
