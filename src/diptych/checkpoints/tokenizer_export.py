"""A tokenizer written so that other libraries, which know nothing of our settings, give the same ids.

The spelling rules that we apply before the vocabulary become part of tokenizer.json. What cannot travel: mending broken
encodings and HTML entities, and that a special token's name inside a caption is plain text to us.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from diptych.core.config import to_dict
from diptych.core.errors import CheckpointError
from diptych.core.files import write_json
from diptych.data.tokenize import CONFIG_FILE, TOKENIZER_FILE, Tokenizer

_COLLAPSE: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Strip", "strip_left": True, "strip_right": True},
]
_SPELLING: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "clip": [{"type": "Lowercase"}, *_COLLAPSE],
    "siglip": [
        {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": r"[!-/:-@\[-`{-~]"}, "content": ""},  # ASCII punctuation
        {"type": "Lowercase"},
        *_COLLAPSE,
    ],
}


def save_for_others(folder: Path, tokenizer: Tokenizer, ids_only: bool = False) -> None:
    """Write tokenizer.json and tokenizer_config.json for transformers and open_clip.

    `ids_only`: their tokenizer hands the model no attention mask (SigLIP, whose weights have learned to see padding).
    Raises CheckpointError where the model reads its padding and the padding is no special token.
    """
    tokenizer.save(folder)
    content = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    spelling = _SPELLING[tokenizer.config.canonicalise]
    own = content.get("normalizer")
    steps = own["normalizers"] if own and own["type"] == "Sequence" else [own] if own else []
    if spelling and steps[: len(spelling)] != spelling:
        content["normalizer"] = {"type": "Sequence", "normalizers": [*spelling, *steps]}
    vocabulary = tokenizers.Tokenizer.from_str(json.dumps(content))
    start, end = (None if i is None else vocabulary.id_to_token(i) for i in (tokenizer.start_id, tokenizer.end_id))
    vocabulary.post_processor = _template(start, tokenizer.start_id, end, tokenizer.end_id)
    vocabulary.save(str(folder / TOKENIZER_FILE))
    named = {"bos_token": start, "eos_token": end, "pad_token": _pad_token(content, tokenizer, ids_only) or end}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.context_length,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        **{name: token for name, token in named.items() if token is not None},
        "diptych": to_dict(tokenizer.config),
    }
    write_json(folder / CONFIG_FILE, settings | ({"model_input_names": ["input_ids"]} if ids_only else {}))


def swap_ids(tokenizer: Tokenizer, a: int, b: int) -> Tokenizer:
    """The same tokenizer with the ids of two tokens exchanged (a permutation of the vocabulary, its own inverse)."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        content = json.loads((Path(folder) / TOKENIZER_FILE).read_text(encoding="utf-8"))
    other: dict[int, int] = {a: b, b: a}
    vocab = content["model"]["vocab"]
    if isinstance(vocab, dict):
        swapped: dict[str, int] = {token: other.get(i, i) for token, i in vocab.items()}
        content["model"]["vocab"] = dict(sorted(swapped.items(), key=lambda item: item[1]))
    else:  # Unigram: pairs of token and score, in order of id
        vocab[a], vocab[b] = vocab[b], vocab[a]
        unknown = content["model"].get("unk_id")
        content["model"]["unk_id"] = other.get(unknown, unknown)
    for token in content["added_tokens"]:
        token["id"] = other.get(token["id"], token["id"])
    content["added_tokens"].sort(key=lambda token: token["id"])
    content["post_processor"] = None  # it names ids; `save_for_others` writes it anew
    config = tokenizer.config
    fields = {n: getattr(config, n) for n in ("start_id", "end_id", "pad_id")}
    moved = {n: other.get(i, i) for n, i in fields.items() if i is not None}
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)), config.replace(**moved))


def _template(start: str | None, start_id: int | None, end: str | None, end_id: int | None) -> Any:
    specials = [(t, i) for t, i in ((start, start_id), (end, end_id)) if t is not None and i is not None]
    single = " ".join(part for part in (start, "$A", end) if part is not None)
    pair = " ".join(part for part in (start, "$A", "$B", end) if part is not None)
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(dict.fromkeys(specials)))


def _pad_token(content: dict[str, Any], tokenizer: Tokenizer, needed: bool) -> str | None:
    """The padding's name, if it is a special token: to name an ordinary one ("!") would take it out of captions."""
    for token in content["added_tokens"]:
        if token["id"] == tokenizer.pad_id and token["special"]:
            return str(token["content"])
    if needed:
        raise CheckpointError(
            f"a model that reads its padding must have a special token for it; id {tokenizer.pad_id} is an ordinary "
            "one, and other libraries would take it out of captions. Train with a tokenizer that has a pad token."
        )
    return None
