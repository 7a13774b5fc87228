"""Texts to token ids: byte-level BPE trained on one's own captions, CLIP's own vocabulary, or any tokenizer.json.

What is cut off is counted, never silent. A caption can not smuggle in a special token: ``"<end>"`` in a text is text.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
import torch
from jaxtyping import Int64
from pydantic import Field
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from diptych.core.config import Config, to_dict
from diptych.core.errors import ConfigError
from diptych.core.files import write_atomic, write_json
from diptych.data.canonicalise import CANONICAL, Canonical
from diptych.data.clip_vocabulary import END, START, clip_vocabulary

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


class TokenizerConfig(Config):
    """What the vocabulary does not say: how texts are spelled, which specials surround them, where they end.

    canonicalise   "clip": mended, whitespace collapsed, lower case; "siglip": lower case without punctuation;
                   "none": the text as it is (a tokenizer.json may still normalise by itself)
    start_id, end_id   put before and after each text, if given; the end stays the last token of a text that is cut
    pad_to         "longest": a batch is as wide as its longest row; "context": always `context_length` wide (SigLIP)
    """

    context_length: int = Field(default=77, ge=1)
    canonicalise: Canonical = "clip"
    start_id: int | None = None
    end_id: int | None = None
    pad_id: int = Field(default=0, ge=0)
    pad_to: Literal["longest", "context"] = "longest"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The ids of one text, specials included, and whether its end was cut off."""

    ids: list[int]
    truncated: bool


class Tokenizer:
    """Maps texts to ids and back. `seen` and `truncated` count the texts that it has met and had to cut."""

    def __init__(self, vocabulary: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
        vocabulary.no_truncation()
        vocabulary.no_padding()
        vocabulary.encode_special_tokens = True  # despite its name: specials inside a text are encoded as plain text
        self._vocabulary = vocabulary
        self._clean: Callable[[str], str] = CANONICAL[config.canonicalise]
        self.config = config
        self.vocab_size: int = max(vocabulary.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.seen = 0
        self.truncated = 0
        specials = sum(i is not None for i in (config.start_id, config.end_id))
        self.room: int = config.context_length - specials  # the most ids between the specials
        if self.room < 1:
            raise ConfigError(
                f"TokenizerConfig.context_length must be more than the {specials} special tokens; "
                f"got {config.context_length}. Give it room for the text."
            )
        for name, i in (("start_id", config.start_id), ("end_id", config.end_id), ("pad_id", config.pad_id)):
            if i is not None and not 0 <= i < self.vocab_size:
                raise ConfigError(
                    f"TokenizerConfig.{name} must be an id of the vocabulary (0 to {self.vocab_size - 1}); got {i}. "
                    "Take the id that the vocabulary gives to the special token."
                )

    @property
    def context_length(self) -> int:
        """The most tokens of a text, specials included."""
        return self.config.context_length

    @property
    def pad_id(self) -> int:
        """The id that fills rows to the width of their batch."""
        return self.config.pad_id

    @property
    def start_id(self) -> int | None:
        """The id before each text, or None."""
        return self.config.start_id

    @property
    def end_id(self) -> int | None:
        """The id after each text, or None."""
        return self.config.end_id

    @cached_property
    def fingerprint(self) -> str:
        """64 bits of a hash of the vocabulary and the config, as 16 hex digits: equal ones tokenise alike."""
        config = {k: v for k, v in to_dict(self.config).items() if k != "kind"}
        text = json.dumps([json.loads(self._vocabulary.to_str()), config], sort_keys=True)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> Encoded:
        """The ids of one text."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """The ids of each text. A text without any token becomes one pad token, so that no row is empty."""
        start, end = self.specials
        rows = [
            Encoded([*start, *ids[: self.room], *end] or [self.pad_id], len(ids) > self.room)
            for ids in self.bare(texts)
        ]
        self.count(len(rows), sum(r.truncated for r in rows))
        return rows

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text alone: whole, without specials, not counted."""
        texts = [self._clean(t).encode("utf-8", "replace").decode() for t in texts]  # lone surrogates become "?"
        return [found.ids for found in self._vocabulary.encode_batch_fast(texts, add_special_tokens=False)]

    @cached_property
    def specials(self) -> tuple[list[int], list[int]]:
        """What is put before and after each text: one id or none each."""
        return [i for i in (self.start_id,) if i is not None], [i for i in (self.end_id,) if i is not None]

    def count(self, seen: int, truncated: int) -> None:
        """Add to the counters what a worker process has met."""
        self.seen += seen
        self.truncated += truncated

    def pad(self, rows: Sequence[Encoded]) -> tuple[Int64[Tensor, "b t"], Int64[Tensor, " b"]]:
        """Rows as one right-padded matrix, as wide as `pad_to` says, and how many ids of each row are real."""
        lengths = np.array([len(r.ids) for r in rows], dtype=np.int64)
        width = self.context_length if self.config.pad_to == "context" else int(lengths.max(initial=1))
        tokens = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        for row, encoded in zip(tokens, rows, strict=True):
            row[: len(encoded.ids)] = encoded.ids
        return torch.from_numpy(tokens), torch.from_numpy(lengths)

    def batch(self, texts: Sequence[str]) -> tuple[Int64[Tensor, "b t"], Int64[Tensor, " b"]]:
        """Token ids and lengths of several texts."""
        return self.pad(self.encode_all(texts))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without specials; with "none" and a vocabulary of our own, the very text."""
        special = {i for i in (self.start_id, self.end_id) if i is not None}
        return str(self._vocabulary.decode([i for i in map(int, ids) if i not in special], skip_special_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        found: int | None = self._vocabulary.token_to_id(token)
        return found

    def pieces(self) -> list[str]:
        """Each id's token as the vocabulary spells it; "" where an id has none."""
        return [self._vocabulary.id_to_token(i) or "" for i in range(self.vocab_size)]

    def with_context_length(self, context_length: int) -> "Tokenizer":
        """The same tokenizer that cuts elsewhere, with counters of its own."""
        return self.replaced(context_length=context_length)

    def replaced(self, **values: Any) -> "Tokenizer":
        """The same vocabulary with some settings changed, with counters of its own."""
        copy = tokenizers.Tokenizer.from_str(self._vocabulary.to_str())
        return Tokenizer(copy, self.config.replace(**values))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which other libraries can read too."""
        config = self.config
        names: dict[str, int | None] = {"bos_token": config.start_id, "eos_token": config.end_id}
        if self._is_special(config.pad_id):  # CLIP pads with "!": named as a special, others would strip it from texts
            names["pad_token"] = config.pad_id
        write_atomic(Path(folder) / TOKENIZER_FILE, self._vocabulary.to_str(pretty=True) + "\n")
        write_json(
            Path(folder) / CONFIG_FILE,
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": config.context_length,
                **{name: self._vocabulary.id_to_token(i) for name, i in names.items() if i is not None},
                "diptych": to_dict(config),
            },
        )

    def _is_special(self, i: int) -> bool:
        added = self._vocabulary.get_added_tokens_decoder().get(i)
        return added is not None and bool(added.special)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Tokenizer":
        """The tokenizer that `save` wrote, or that another library wrote into `folder` (see `from_file`)."""
        return cls.from_file(folder)

    @classmethod
    def from_file(cls, path: str | PathLike[str], **settings: Any) -> "Tokenizer":
        """A tokenizer of ours or of another library: a tokenizer.json, its folder, or CLIP's vocab.json and merges.txt.

        Specials, context length, padding and spelling are read from the files beside it (CLIP and SigLIP known by
        name); `settings` are fields of TokenizerConfig that win over what was read.
        """
        from diptych.data.tokenizer_files import read_foreign

        vocabulary, found = read_foreign(Path(path))
        return cls(vocabulary, TokenizerConfig(**{**found, **settings}))

    @classmethod
    def clip(cls, context_length: int = 77) -> "Tokenizer":
        """CLIP's own 49,408 tokens, id for id; rows are padded with 0 as OpenAI and open_clip do.

        The vocabulary is taken from an installed open_clip, else fetched with pip.
        """
        vocabulary = clip_tokenizer(*clip_vocabulary())
        start, end = (vocabulary.token_to_id(t) for t in (START, END))
        return cls(vocabulary, TokenizerConfig(context_length=context_length, start_id=start, end_id=end))

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        vocab_size: int = 8192,
        context_length: int = 77,
        canonicalise: Canonical = "clip",
        min_frequency: int = 2,
    ) -> "Tokenizer":
        """A byte-level BPE of at most `vocab_size` tokens: 3 specials, 256 bytes, and what the captions repeat.

        Deterministic, whatever the order of `captions`. Few captions give fewer tokens. Lower-cases unless told
        otherwise ("none"): in captions case says little, and it would double a small vocabulary.
        """
        specials = ["<pad>", "<end>", "<start>"]  # the end is not 2, which transformers' CLIP takes for an old mistake
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < len(specials) + len(alphabet):
            raise ConfigError(
                f"vocab_size must be at least {len(specials) + len(alphabet)} (every byte and three specials); "
                f"got {vocab_size}. Give it more, 1024 or above."
            )
        vocabulary = tokenizers.Tokenizer(models.BPE())
        # A space before the first word makes it the same token as inside a text; the decoder takes it off again.
        prefix = [normalizers.Prepend(" ")]
        vocabulary.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), *prefix] if canonicalise != "none" else prefix
        )
        vocabulary.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        vocabulary.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        clean = CANONICAL[canonicalise]
        vocabulary.train_from_iterator((clean(c).encode("utf-8", "replace").decode() for c in captions), trainer)
        vocabulary.post_processor = processors.TemplateProcessing(
            single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 1)]
        )
        config = TokenizerConfig(
            context_length=context_length, canonicalise=canonicalise, start_id=2, end_id=1, pad_id=0
        )
        return cls(vocabulary, config)


_CLIP_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{0345}]+"
"""OpenAI's pattern. U+0345 falls out of it there, since its case folding is a letter. Letters that Unicode gained after
version 15 count as symbols here and as letters where Python's `regex` is newer."""


def clip_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's byte-pair scheme ("</w>" ends a word) over a vocabulary; the text must come canonicalised."""
    vocabulary = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>"))
    vocabulary.normalizer = normalizers.Lowercase()  # idempotent here; for others who read the file
    vocabulary.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocabulary.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    vocabulary.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (START, END)])
    vocabulary.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocab[t]) for t in (START, END)]
    )
    return vocabulary
