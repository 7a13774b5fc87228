"""A model by a few words: a run of ours by its path, other people's weights by ``openclip:PATH``, ``hf:PATH``."""

from pathlib import Path
from typing import NamedTuple

import torch

from diptych.checkpoints.convert import assemble, read
from diptych.checkpoints.native import fingerprint, load
from diptych.core.config import to_json
from diptych.core.errors import CheckpointError, ConfigError
from diptych.models.pretrained import Pretrained

WORDS = {
    "openclip": "open_clip",
    "open_clip": "open_clip",
    "openai": "openai",
    "hf": "transformers",
    "transformers": "transformers",
}
"""What stands before the colon, and the format that it means."""


class Named(NamedTuple):
    """What a model's words mean: a format ("" is ours), where it lies, and a name that a folder may have."""

    format: str
    path: Path
    name: str


def parse(words: str) -> Named:
    """The parts of RUN, openclip:PATH, hf:PATH or openai:PATH, nothing being opened."""
    prefix, colon, rest = words.partition(":")
    if not colon or Path(words).exists():
        return Named("", Path(words), Path(words).name)
    if prefix not in WORDS:
        raise ConfigError(
            f"a model must be a run's folder, or {', '.join(f'{w}:PATH' for w in WORDS)}; got {words!r}. Name one of "
            "these with a path on this machine."
        )
    path = Path(rest)
    if not path.exists():
        raise CheckpointError(
            f"{words} must lie on this machine; {path} is not there. Download it first (huggingface-cli download "
            "REPOSITORY --local-dir FOLDER)."
        )
    return Named(WORDS[prefix], path, f"{prefix}-{path.resolve().name}")


def open_model(words: str, device: str | torch.device = "cpu") -> Pretrained:
    """The model that `words` name, ready to embed, score and write.

    A foreign one is converted in memory, exactly; its fingerprint is of the converted weights and settings.
    """
    named = parse(words)
    if not named.format:
        return load(named.path, device=device)
    found = read(named.format, named.path)
    if found.tokenizer is None:
        raise CheckpointError(
            f"{named.path} must bring its tokenizer (tokenizer.json, or vocab.json with merges.txt); it does not. Put "
            "the model's own tokenizer files beside the weights."
        )
    model = assemble(found, found.tokenizer)
    model.fingerprint = fingerprint(model.model.state_dict(), to_json(found.config))
    model.name = named.name
    return model.to(device)
