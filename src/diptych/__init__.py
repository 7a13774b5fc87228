"""Diptych pretrains vision-language models on paired data; ``diptych.load(run)`` gives one that embeds and scores."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from diptych.checkpoints.native import load


def __getattr__(name: str) -> Any:
    """`load`, imported when first asked for, so that ``import diptych`` and ``--help`` never wait for torch."""
    if name == "load":
        from diptych.checkpoints.native import load

        return load
    raise AttributeError(f"module 'diptych' has no attribute {name!r}")
