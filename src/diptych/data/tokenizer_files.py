"""Tokenizer files, ours and other libraries', read as a vocabulary and the settings that TokenizerConfig needs."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from diptych.core.config import from_dict
from diptych.core.errors import DataError

_MOST_BYTES = 256 << 20
_MOST_CONTEXT = 1 << 20
"""transformers writes 1e30 for "no limit"."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that is no larger than a tokenizer can be."""
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"{path} must be JSON; got {error}. Fetch or save it anew.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object; got a {type(value).__name__}. Fetch or save it anew.")
    return value


def read_vocabulary(path: Path) -> tokenizers.Tokenizer:
    """The vocabulary in a tokenizer.json."""
    text = _read(path)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path} must be a tokenizer.json; got {str(error)[:200]!r}. Save it anew.") from None


def read_foreign(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """A vocabulary, and what the files beside it say as fields of TokenizerConfig."""
    folder = path if path.is_dir() else path.parent
    file = path / "tokenizer.json" if path.is_dir() else path
    about = _about(folder)
    if file.is_file():
        vocabulary = read_vocabulary(file)
        if "diptych" in about:
            return vocabulary, _ours(about["diptych"], folder)
        start, end = _surrounding(vocabulary)
        known = {"canonicalise": "none"}
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary, start, end = _clip_slow(folder)
        known = {"canonicalise": "clip"}
    else:
        raise DataError(
            f"{path} must be a tokenizer.json or a folder that holds one (or vocab.json with merges.txt); got neither. "
            "Save the tokenizer with its library's save_pretrained first."
        )
    found: dict[str, Any] = {**known, "start_id": start, "end_id": end, "pad_id": _pad(vocabulary, about, end)}
    length = about.get("model_max_length")
    if isinstance(length, (int, float)) and 0 < length < _MOST_CONTEXT:
        found["context_length"] = int(length)
    if str(about.get("tokenizer_class", "")).startswith("Siglip"):  # trained on such text, always 64 wide, no mask
        found |= {"canonicalise": "siglip", "pad_to": "context", "context_length": found.get("context_length", 64)}
    if end is None and (eos := _id(vocabulary, about.get("eos_token"))) is not None:
        found["end_id"] = eos  # a text tower pools there, even where the library would leave it out
    return vocabulary, found


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DataError(f"{path} must be at most {_MOST_BYTES >> 20} MB; got {size >> 20} MB. Is it a tokenizer?")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} must be UTF-8 text; got other bytes. Fetch or save it anew.") from None
    except OSError as error:
        raise DataError(f"{path} must be a file that can be read; got {error.strerror}. Check the path.") from None


def _about(folder: Path) -> dict[str, Any]:
    """special_tokens_map.json and tokenizer_config.json as one; the latter wins."""
    about: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            about |= read_json(folder / name)
    return about


def _ours(value: Any, folder: Path) -> dict[str, Any]:
    from diptych.data.tokenize import TokenizerConfig

    config = from_dict(value)
    if not isinstance(config, TokenizerConfig):
        raise DataError(
            f"{folder}/tokenizer_config.json must hold a TokenizerConfig under diptych; got {type(config).__name__}. "
            "Save the tokenizer anew."
        )
    return {name: getattr(config, name) for name in TokenizerConfig.model_fields}


def _surrounding(vocabulary: tokenizers.Tokenizer) -> tuple[int | None, int | None]:
    """The ids that the file itself puts before and after a text, found by asking it."""
    bare, full = (  # the file may pad each text to some length
        [i for i, real in zip(found.ids, found.attention_mask, strict=True) if real]
        for found in (vocabulary.encode("a", add_special_tokens=special) for special in (False, True))
    )
    at = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), None)
    if at is None or at > 1 or len(full) - at - len(bare) > 1:
        raise DataError(
            f"a tokenizer.json must put at most one special token before and after a text; got {full} for {bare}. "
            "Change its post_processor."
        )
    return (full[0] if at else None), (full[-1] if len(full) > at + len(bare) else None)


def _clip_slow(folder: Path) -> tuple[tokenizers.Tokenizer, int | None, int | None]:
    from diptych.data.clip_vocabulary import END, START
    from diptych.data.tokenize import clip_tokenizer

    vocab = read_json(folder / "vocab.json")
    if not (START in vocab and END in vocab and all(isinstance(i, int) for i in vocab.values())):
        raise DataError(
            f"{folder}/vocab.json must be CLIP's kind ({START}, {END}, words that end in </w>); got another. "
            "Save it as a tokenizer.json with its own library."
        )
    lines = _read(folder / "merges.txt").split("\n")
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if not all(len(p) == 2 for p in pairs):
        raise DataError(f"{folder}/merges.txt must hold two tokens a line; got another. Fetch or save it anew.")
    try:
        return clip_tokenizer(vocab, [(a, b) for a, b in pairs]), vocab[START], vocab[END]
    except Exception as error:  # the library raises bare Exception: a merge out of the vocabulary
        raise DataError(f"{folder} must hold vocab.json and merges.txt that belong together; got {error}.") from None


def _pad(vocabulary: tokenizers.Tokenizer, about: dict[str, Any], end: int | None) -> int:
    """The pad token's id where one is named, else the end's, else 0: lengths are given, so models never look at it."""
    found = _id(vocabulary, about.get("pad_token"))
    if found is None and vocabulary.padding is not None:
        found = vocabulary.padding["pad_id"]
    return found if found is not None else end or 0


def _id(vocabulary: tokenizers.Tokenizer, token: Any) -> int | None:
    if isinstance(token, dict):
        token = token.get("content")
    found: int | None = vocabulary.token_to_id(token) if isinstance(token, str) else None
    return found
