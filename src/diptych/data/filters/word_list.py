"""Captions that hold none of a list of words."""

from pathlib import Path

from jaxtyping import Bool
from numpy import ndarray

from diptych.core.errors import ConfigError
from diptych.data.candidates import Rows
from diptych.data.filters.filter import Filter, FilterConfig


class WordListConfig(FilterConfig):
    """The words, of which a caption must hold one: those of `words` or of the `file`, a word a line.

    A caption's words are what whitespace parts, with the marks that stick to them ("dog," is not "dog"), in lower case:
    DataComp's reading, which looks each such word up in WordNet, where case does not matter. Forms of a word
    ("dogs") are words of their own: list them.
    """

    words: tuple[str, ...] = ()
    file: str = ""

    def build(self) -> "WordList":
        """The filter. Raises ConfigError without a list."""
        return WordList(self)


class WordList(Filter):
    """Reason: no_listed_word. The first caption is judged."""

    def __init__(self, config: WordListConfig) -> None:
        self.words = frozenset(w.strip().lower() for w in _words(config)) - {""}
        if not self.words:
            raise ConfigError(f"WordListConfig must list words; got none in {config.file or 'words'}.")

    def reasons(self, rows: Rows, alive: Bool[ndarray, " n"]) -> list[str]:
        """By each caption's words."""
        return ["no_listed_word" if self.words.isdisjoint(text.lower().split()) else "" for text in rows.texts]


def _words(config: WordListConfig) -> list[str]:
    if bool(config.words) == bool(config.file):
        raise ConfigError(
            f"WordListConfig must have words or a file of them, and not both; got {len(config.words)} words and "
            f'{config.file or "no file"}. Set one: words = ["dog", "cat"]'
        )
    if config.words:
        return list(config.words)
    try:
        return Path(config.file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"WordListConfig.file must be a text file with a word a line; got {config.file} ({error}). WordNet is not "
            "shipped: docs/how-to/curate-a-pool.md says how such a list is made of it."
        ) from None
