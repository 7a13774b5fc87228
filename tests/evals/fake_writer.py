"""A model that writes whose every probability is known: it has learned the texts of a split by heart, or wrong ones."""

from typing import Any

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.core.seeds import fold
from diptych.data.tokenize import Tokenizer, TokenizerConfig
from diptych.models.model import ModelConfig
from diptych.models.pretrained import Pretrained
from diptych.models.writer import NextTokens, State, Writer
from diptych.nn.cache import Cache
from tests.evals.fakes import SIDE, FakeSplit

VOCABULARY = 256
DOUBT = 1e-3
"""How much probability is spread over all words alike."""


class WordTokenizer(Tokenizer):
    """A token a word."""

    def __init__(self) -> None:
        self.config = TokenizerConfig(context_length=32, start_id=2, end_id=1)
        self.words: dict[str, int] = {}
        self.seen = self.truncated = 0
        self.room = 30

    def bare(self, texts: Any) -> list[list[int]]:
        return [[self.words.setdefault(w, len(self.words) + 3) for w in t.lower().split()] for t in texts]

    def decode(self, ids: Any) -> str:
        spelled = {i: w for w, i in self.words.items()}
        return " ".join(spelled.get(int(i), "?") for i in ids)


class FakeReading(Cache):
    """What was read of each row: its image's number and the tokens so far."""

    def __init__(self, rows: list[tuple[int, list[int]]]) -> None:
        super().__init__(0)
        self.rows = rows

    def copy(self) -> "FakeReading":
        return FakeReading([(number, list(ids)) for number, ids in self.rows])

    def select(self, rows: Tensor) -> None:
        self.rows = [(self.rows[r][0], list(self.rows[r][1])) for r in rows.tolist()]


class _WriterConfig(ModelConfig):
    pass


class FakeWriter(Writer):
    """Goes on as the texts that it knows of an image go on; where it knows none, it says anything. `blind`: of every
    image it knows the texts of all."""

    image_tokens = 1

    def __init__(self, texts: dict[int, list[list[int]]], perfect: bool, blind: bool = False) -> None:
        super().__init__(_WriterConfig(image_format=ImageFormat(resolution=SIDE), context_length=32), VOCABULARY)
        self.texts, self.perfect, self.blind = texts, perfect, blind
        self.everything = [t for said in texts.values() for t in said]
        self.weight = torch.nn.Parameter(torch.eye(VOCABULARY))
        self.images_seen = 0
        self.said: dict[tuple[int, ...], Tensor] = {}

    def decay_free(self) -> set[str]:
        return set()

    def image_vectors(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        red, green, _ = images[:, :, 0, 0].round().long().unbind(1)
        return (red * 256 + green).float()[:, None]

    def features_from(self, vectors: Tensor) -> Tensor:
        return vectors[:, None]

    def table_width(self, kind: str) -> int:
        return 1

    def head(self) -> tuple[Tensor, None]:
        return self.weight, None

    def predict(self, batch: Batch, features: Tensor | None = None) -> NextTokens:
        raise NotImplementedError

    def begin(self, features: Tensor | None, prompt: Batch) -> State:
        assert features is not None
        zeros = torch.zeros(len(features), dtype=torch.int64)
        state = State(FakeReading([(int(n), []) for n in features.flatten().tolist()]), zeros, zeros)
        if prompt.tokens.shape[1]:
            self.read(state, prompt.tokens, prompt.lengths)
        return state

    def read(self, state: State, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        sizes = torch.full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
        hidden = torch.zeros(*tokens.shape, VOCABULARY)
        for row, (number, ids) in enumerate(state.reading.rows):
            for t in range(int(sizes[row])):
                ids.append(int(tokens[row, t]))
                known = (number, *ids)
                if known not in self.said:
                    self.said[known] = self._next(number, ids)
                hidden[row, t] = self.said[known]
        state.last = hidden[torch.arange(len(tokens)), sizes - 1]
        state.text = state.text + sizes
        return hidden

    def _next(self, number: int, ids: list[int]) -> Tensor:
        probability = torch.full((VOCABULARY,), DOUBT / VOCABULARY)
        ways = [t[len(ids)] for t in self._known(number) if t[: len(ids)] == ids and len(t) > len(ids)]
        for way in ways:
            probability[way] += (1 - DOUBT) / len(ways)
        return probability.log() if ways else torch.zeros(VOCABULARY)

    def _known(self, number: int) -> list[list[int]]:
        if self.blind:
            return self.everything
        if not self.perfect and number < 10_000:  # the blank image is none of the split's
            number = fold("another image", number) % len(self.texts)
        return self.texts.get(number, [])


def writer(split: FakeSplit, perfect: bool = True, blind: bool = False) -> Pretrained:
    """A model that knows the captions, questions with their answers, and labels of the images of `split`."""
    tokenizer = WordTokenizer()
    start, end = [2], [1]
    texts: dict[int, list[list[int]]] = {}
    for i in range(len(split)):
        said = [
            *split.captions(i)[:1],
            *([str(split.meta(i)["label"]).replace("_", " ")] if "label" in split.meta(i) else []),
        ]
        rows = [[*start, *ids, *end] for ids in tokenizer.bare(said)]
        for question, answer in (split.asked[i] if split.asked else {}).items():
            q, a = tokenizer.bare([question, answer])
            rows.append([*start, *q, *a, *end])
        texts[i] = rows
    return Pretrained(FakeWriter(texts, perfect, blind), tokenizer, fingerprint="f" * 8)
