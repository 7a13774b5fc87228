"""Words are found in each way of spelling them."""

import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from diptych.data.tokenize import Tokenizer, TokenizerConfig
from diptych.data.word_starts import WordStarts


def words_of(tokenizer: Tokenizer, text: str) -> list[list[str]]:
    tokens, lengths = tokenizer.batch([text])
    pieces, starts = tokenizer.pieces(), WordStarts(tokenizer)(tokens)[0]
    words: list[list[str]] = []
    for token, begins in zip(tokens[0, : int(lengths)].tolist(), starts.tolist(), strict=False):
        if begins:
            words.append([])
        words[-1].append(pieces[token])
    return words


def test_our_own_byte_level_vocabulary():
    tokenizer = Tokenizer.train(["a red circle", "a red square"] * 3, vocab_size=300)
    words = words_of(tokenizer, "a red circle")
    assert [len(w) > 0 for w in words] == [True] * 5
    assert ["".join(w).strip("\u0120") for w in words] == ["<start>", "a", "red", "circle", "<end>"]


def test_wordpiece_and_words_without_marks():
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "cir": 3, "##cle": 4, "a": 5}
    pieces = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[PAD]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    config = TokenizerConfig(context_length=8, start_id=1, end_id=2, pad_id=0, canonicalise="none")
    assert words_of(Tokenizer(pieces, config), "a circle") == [["[CLS]"], ["a"], ["cir", "##cle"], ["[SEP]"]]
    plain = tokenizers.Tokenizer(models.WordLevel({"[PAD]": 0, "s": 1, "e": 2, "red": 3, "dog": 4}, unk_token="[PAD]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    assert words_of(Tokenizer(plain, config), "red dog") == [["s"], ["red"], ["dog"], ["e"]]


def test_ends_of_words_as_clip_marks_them():
    vocabulary = {"<pad>": 0, "<s>": 1, "<e>": 2, "c": 3, "at</w>": 4, "a</w>": 5}
    bpe = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer = Tokenizer(bpe, TokenizerConfig(context_length=8, start_id=1, end_id=2, pad_id=0))
    starts = WordStarts(tokenizer)(torch.tensor([[1, 5, 3, 4, 2, 0]]))
    assert starts.tolist() == [[True, True, True, False, True, True]]
