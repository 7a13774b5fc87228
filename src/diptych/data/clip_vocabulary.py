"""CLIP's own byte-pair vocabulary: found in an installed open_clip, else fetched as a pinned package."""

import gzip
import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

from diptych.core.errors import FetchError
from diptych.data.fetch import Package, fetch

START, END = "<|startoftext|>", "<|endoftext|>"
"""OpenAI's names of the two special tokens; ids 49406 and 49407."""

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_FILE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
_WHEEL = Package(
    client="pip",
    name="open_clip_torch",
    version="3.3.0",
    filename="open_clip_torch-3.3.0-py3-none-any.whl",
    sha256="c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
)
_MERGES = 49152 - 256 - 2
_MOST_TEXT = 16 << 20


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The 49,408 tokens with their ids, and the 48,894 merges in the order in which they apply.

    Ids: 256 bytes, the same 256 ending a word, the merges' results, start, end (openai/CLIP, simple_tokenizer.py).
    """
    merges = read_merges(_packed())
    symbols = list(byte_symbols().values())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def read_merges(packed: bytes) -> list[tuple[str, str]]:
    """The merges that CLIP uses of the packed list (it holds many more), checked against the pinned hash first."""
    got = hashlib.sha256(packed).hexdigest()
    if got != _FILE_SHA256:
        raise FetchError(
            f"CLIP's vocabulary must have sha256 {_FILE_SHA256[:16]}...; got {got[:16]}.... "
            "Reinstall open_clip_torch, or clear the cache and fetch it anew."
        )
    with gzip.open(io.BytesIO(packed)) as f:
        lines = f.read(_MOST_TEXT).decode().split("\n")
    pairs = [line.split() for line in lines[1 : _MERGES + 1]]  # the first line names the version
    return [(left, right) for left, right in pairs]


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte, in the order of GPT-2's and CLIP's first 256 ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in set(printable)]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _packed() -> bytes:
    found = importlib.util.find_spec("open_clip")  # found, not imported: importing it wants torchvision
    if found is not None and found.origin is not None:
        path = Path(found.origin).with_name(_FILE)
        if path.is_file():
            return path.read_bytes()
    wheel = fetch(_WHEEL)
    with zipfile.ZipFile(wheel) as z, z.open(f"open_clip/{_FILE}") as f:
        return f.read(_MOST_TEXT)
