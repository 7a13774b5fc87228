"""A model with what it needs to be used: its tokenizer, pixel format and fingerprint. What `load` returns."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import DataError, EvalError
from diptych.core.seeds import fold
from diptych.data.decode import MAX_BYTES, decode_image, resize_image
from diptych.data.tokenize import Tokenizer
from diptych.models.capabilities import (
    EmbedsImages,
    EmbedsText,
    GeneratesImages,
    ScoresPairs,
    capabilities_of,
    require,
)
from diptych.models.generate import Generation, write
from diptych.models.model import Model
from diptych.models.painting import Painting
from diptych.models.vector_memory import VectorMemory, text_key

ImageLike = Any
"""A path, encoded bytes, a PIL image, a uint8 array (h, w, 3) or a uint8 tensor (3, h, w)."""


TOKENS = {"cuda": 1 << 16, "cpu": 1 << 12}
"""Tokens of texts that are embedded at once."""

TOKENIZED = 4096
"""Texts that are tokenised at once, and whose vectors come back from the device at once."""


class Pretrained:
    """Embeds, scores and writes about raw images and strings. Batches are formed here; gradients are off.

    Its methods take a single item or a sequence of them and return one row an item, on the CPU in float32: plain
    tensors, on which a probe can be trained.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, fingerprint: str = "", name: str = "") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.name = name
        self.memory: VectorMemory | None = None
        """Where texts' vectors are kept once they are computed, and evals keep images'; None: nowhere."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The names of what this model can do."""
        return capabilities_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "Pretrained":
        """The same object with its weights moved."""
        self.model.to(device)
        return self

    def pixels(self, image: ImageLike) -> Tensor:
        """One image as uint8 (3, side, side), decoded safely and resized as the model's format says."""
        return resize_image(_as_tensor(image), self.model.config.image_format)

    @torch.no_grad()
    def embed_image(self, images: ImageLike | Sequence[ImageLike], batch_size: int = 64) -> Float[Tensor, "n e"]:
        """Unit vectors of images."""
        require(self.model, ("embed_image",), "embed_image")
        rows = [
            cast(EmbedsImages, self.model)
            .embed_image(torch.stack([self.pixels(i) for i in part]).to(self.device))
            .float()
            .cpu()
            for part in _parts(_listed(images), batch_size)
        ]
        return torch.cat(rows)

    @torch.no_grad()
    def embed_text(self, texts: str | Sequence[str], batch_size: int = 0) -> Float[Tensor, "n e"]:
        """Unit vectors of texts, `batch_size` at a time; 0: as many as have some thousand tokens together.

        Long and short texts may be mixed: towers pack them, and texts that begin alike are best given side by side.
        """
        require(self.model, ("embed_text",), "embed_text")
        given = _strings(texts)
        if self.memory is None:
            return self._embedded(given, batch_size)
        keys = [text_key(t) for t in given]
        new = self.memory.missing("text", keys)
        if new:
            self.memory.add("text", [keys[i] for i in new], self._embedded([given[i] for i in new], batch_size))
        return self.memory.get("text", keys)

    def _embedded(self, texts: list[str], batch_size: int) -> Tensor:
        rows = torch.empty(0)
        for start, part in zip(range(0, len(texts), TOKENIZED), _parts(texts, TOKENIZED), strict=True):
            tokens, lengths = self.tokenizer.batch(part)
            pieces = [
                cast(EmbedsText, self.model).embed_text(tokens[a:b].to(self.device), lengths[a:b]).float()
                for a, b in self._pieces(tokens, lengths, batch_size)
            ]
            found = torch.cat(pieces).cpu()
            if not len(rows):  # of their number at once: texts may be so many that they are not to be held twice
                rows = torch.empty(len(texts), found.shape[1])
            rows[start : start + len(found)] = found
        return rows

    @torch.no_grad()
    def score(self, images: ImageLike | Sequence[ImageLike], texts: str | Sequence[str]) -> Float[Tensor, "i t"]:
        """How well each image and each text match; higher is better."""
        require(self.model, ("score",), "score")
        tokens, lengths = self.tokenizer.batch(_strings(texts))
        tokens = tokens.to(self.device)
        rows = [
            cast(ScoresPairs, self.model)
            .score(torch.stack([self.pixels(i) for i in part]).to(self.device), tokens, lengths)
            .float()
            .cpu()
            for part in _parts(_listed(images), 64)
        ]
        return torch.cat(rows)

    def caption(self, images: ImageLike | Sequence[ImageLike], prompt: str = "", **how: Any) -> list[str]:
        """A sentence about each image, `prompt` (its beginning, if given) included. `how`: as for `generate`."""
        return [f"{prompt} {rest}".strip() for rest in self.generate(images, prompt or None, **how)]

    @torch.no_grad()
    def generate(
        self,
        images: ImageLike | Sequence[ImageLike],
        prompts: str | Sequence[str] | None = None,
        image_of: Sequence[int] | None = None,
        batch_size: int = 32,
        **how: Any,
    ) -> list[str]:
        """What the model writes about each image after its prompt (None: from the start), without the prompt.

        One image may have many prompts, and one prompt serves many images, or `image_of` says which image each prompt
        is about; an image is seen once for all its prompts of a batch. `how` are fields of
        `models.generate.Generation`: beams, or top_p and temperature with a seed; max_tokens (0: all that the context
        has room for).
        """
        self._writes("generating text")
        given, places, texts = _crossed(images, [""] if prompts is None else prompts, image_of, "prompts")
        rows = self._prompts(texts)
        written: list[str] = []
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            plan = self._generation(how, max(map(len, rows[part])), start)
            state = self._read(given, places[part], rows[part])
            written += [self.tokenizer.decode(ids).strip() for ids in write(self.model, state, plan)]
        return written

    @torch.no_grad()
    def paint(self, texts: str | Sequence[str], batch_size: int = 16, **how: Any) -> UInt8[Tensor, "n 3 h w"]:
        """An image for each text, on the CPU. `how` are fields of `models.painting.Painting`: seed, guidance, steps."""
        require(self.model, ("generate_image",), "painting")
        given, painted = _strings(texts), []
        for start in range(0, len(given), batch_size):
            tokens, lengths = self.tokenizer.batch(given[start : start + batch_size])
            plan = Painting(**{**how, "first": how.get("first", 0) + start})
            painted.append(
                cast(GeneratesImages, self.model).generate_image(tokens.to(self.device), lengths, plan).cpu()
            )
        return torch.cat(painted)

    def ask(
        self,
        images: ImageLike | Sequence[ImageLike],
        questions: str | Sequence[str],
        answers: Sequence[str] | None = None,
        **how: Any,
    ) -> list[str]:
        """The answer to each question: of `answers` the most probable, else what the model writes.

        One image may have many questions, and one question be asked of many images; else there is one for each.
        """
        if answers is None:
            return self.generate(images, _strings(questions), **how)
        best = self.answer_log_likelihoods(images, questions, answers, **how).argmax(1)
        return [answers[i] for i in best.tolist()]

    def answer_scores(
        self, images: ImageLike | Sequence[ImageLike], questions: str | Sequence[str], answers: Sequence[str]
    ) -> Float[Tensor, "q a"]:
        """The probability of each of `answers` to each question, if one of them is right."""
        return self.answer_log_likelihoods(images, questions, answers).softmax(1)

    @torch.no_grad()
    def answer_log_likelihoods(
        self,
        images: ImageLike | Sequence[ImageLike],
        questions: str | Sequence[str],
        answers: Sequence[str],
        image_of: Sequence[int] | None = None,
        batch_size: int = 64,
    ) -> Float[Tensor, "q a"]:
        """log p(answer and its end | image, question): exact, each image and each question being read once.

        `image_of`: which image each question is about; None: as for `ask`.
        """
        self._writes("answering")
        given, places, texts = _crossed(images, questions, image_of, "questions")
        said = self.tokenizer.bare(_strings(answers))
        end = self.tokenizer.specials[1]
        lengths = torch.tensor([len(ids) + len(end) for ids in said])
        endings = torch.full((len(said), int(lengths.max())), self.tokenizer.pad_id)
        for row, ids in zip(endings, said, strict=True):
            row[: len(ids) + len(end)] = torch.tensor([*ids, *end])
        rows, found = self._prompts(texts, int(lengths.max())), []
        for start in range(0, len(rows), batch_size):
            state = self._read(given, places[start : start + batch_size], rows[start : start + batch_size])
            found.append(cast(Any, self.model).likelihoods(state, endings, lengths).float().cpu())
        return torch.cat(found)

    def _writes(self, who: str) -> None:
        """Raise EvalError where the model does not write."""
        if "generate_text" not in self.capabilities:
            raise EvalError(
                f"{who} must be asked of a model that writes; got {type(self.model).__name__} with "
                f"{', '.join(self.capabilities) or 'none of the capabilities'}. Train one with a recipe that writes, "
                "such as coca:tiny or llava:tiny (all: diptych recipes)."
            )

    def _read(self, images: Sequence[ImageLike], image_of: Sequence[int], prompts: list[list[int]]) -> Any:
        """The state of a model that writes after it has read each prompt and its image; equal images are seen once."""
        network = cast(Any, self.model)
        seen = {place: n for n, place in enumerate(dict.fromkeys(image_of))}
        features = network.image_features(torch.stack([self.pixels(images[i]) for i in seen]).to(self.device))
        index = torch.tensor([seen[i] for i in image_of], device=features.device)
        lengths = torch.tensor([len(p) for p in prompts])
        tokens = torch.full((len(prompts), int(lengths.max())), self.tokenizer.pad_id)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        batch = Batch(tokens=tokens.to(self.device), lengths=lengths, image_record=torch.arange(len(prompts)))
        return network.begin(features[index], batch)

    def _prompts(self, texts: Sequence[str], room: int = 1) -> list[list[int]]:
        """The ids of texts that are to be gone on from by at least `room` tokens: with the start, without the end.
        What is too long loses its end, and is counted by the tokenizer."""
        start, end = self.tokenizer.specials
        if not start or not end:
            raise EvalError(
                f"a tokenizer must have a start and an end to write with; got {start or 'no start'} and "
                f"{end or 'no end'}. Name their ids where it is loaded: "
                "Tokenizer.from_file(PATH, start_id=0, end_id=1)."
            )
        most = max(1, self.tokenizer.context_length - room)
        rows = [[*start, *ids] for ids in self.tokenizer.bare(texts)]
        self.tokenizer.count(len(rows), sum(len(row) > most for row in rows))
        return [row[:most] for row in rows]

    def _generation(self, how: dict[str, Any], longest: int, start: int) -> Generation:
        """How to write after prompts of `longest` tokens, the first of which is the `start`-th of all."""
        room = max(1, self.tokenizer.context_length - longest)
        most = int(how.get("max_tokens") or room)
        seed = how.get("seed", 0) if start == 0 else fold(how.get("seed", 0), "generate", start)
        ids = {"start_id": self.tokenizer.start_id, "end_id": self.tokenizer.end_id}
        return Generation(**{**how, **ids, "max_tokens": min(most, room), "seed": seed})

    def _pieces(self, tokens: Tensor, lengths: Tensor, batch_size: int) -> list[tuple[int, int]]:
        """Where to cut texts so that a piece has enough tokens to keep the device busy, and no more."""
        if batch_size:
            return [(i, min(i + batch_size, len(tokens))) for i in range(0, len(tokens), batch_size)]
        budget = TOKENS["cuda" if self.device.type == "cuda" else "cpu"]
        computed = lengths if self.tokenizer.config.pad_to == "longest" else torch.full_like(lengths, tokens.shape[1])
        piece = (computed.cumsum(0) - 1) // budget
        cuts = [0, *((piece.diff() > 0).nonzero()[:, 0] + 1).tolist(), len(tokens)]
        return list(itertools.pairwise(cuts))


def _listed(images: Any) -> list[Any]:
    if isinstance(images, (str, bytes, Path)) or not isinstance(images, (Sequence, Tensor, np.ndarray)):
        return [images]
    if isinstance(images, (Tensor, np.ndarray)):
        return _some(list(images) if images.ndim == 4 else [images], "images")
    return _some(list(images), "images")


def _some(items: list[Any], what: str) -> list[Any]:
    if not items:
        raise DataError(f"{what} must be at least one; got an empty list. Leave the call out where there is nothing.")
    return items


def _strings(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else _some(list(texts), "texts")


def _crossed(
    images: Any, texts: str | Sequence[str], image_of: Sequence[int] | None, what: str
) -> tuple[list[Any], list[int], list[str]]:
    """Images, which of them each text is about, and the texts: one each, or one of either for all of the others."""
    given, said = _listed(images), _strings(texts)
    if image_of is not None:
        if len(image_of) != len(said):
            raise DataError(f"image_of must name an image for each text; got {len(image_of)} for {len(said)} {what}.")
        return given, list(image_of), said
    if len(given) != len(said) and 1 not in (len(given), len(said)):
        raise DataError(
            f"{what} must be one an image, or one for all, or be about one image; got {len(said)} for {len(given)} "
            "images. Repeat the images or the texts so that they are equally many."
        )
    if len(given) == 1:
        return given, [0] * len(said), said
    return given, list(range(len(given))), said * len(given) if len(said) == 1 else said


def _parts(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    items = list(items)
    return (items[i : i + size] for i in range(0, len(items), size))


def _as_tensor(image: ImageLike) -> Tensor:
    if isinstance(image, (str, Path)):
        try:
            with Path(image).open("rb") as file:
                image = file.read(MAX_BYTES + 1)  # the decoder refuses more, and it need not all be read for that
        except OSError as error:
            raise DataError(f"an image must be a file that can be read; got {image!r} ({error.strerror}).") from None
    if isinstance(image, bytes):
        return decode_image(image)
    if isinstance(image, np.ndarray):
        shape, fits = image.shape, image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if fits and min(shape):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        raise DataError(f"an image array must be uint8 of shape (height, width, 3); got {image.dtype} {tuple(shape)}.")
    if isinstance(image, Tensor):
        if image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.uint8 and image.numel():
            return image.cpu()
        raise DataError(
            f"an image tensor must be torch.uint8 of shape (3, height, width); got {image.dtype} {tuple(image.shape)}."
        )
    return _of_pil(image)


def _of_pil(image: Any) -> Tensor:
    """A PIL image through the one decoder, so that alpha, palette and orientation are treated alike."""
    if not (hasattr(image, "save") and hasattr(image, "getexif")):
        raise DataError(
            f"an image must be a path, encoded bytes, a PIL image, an array or a tensor; got {type(image).__name__}."
        )
    buffer, exif = io.BytesIO(), image.getexif()
    if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image.save(buffer, format="PNG", exif=exif)
    elif image.mode == "CMYK":
        image.save(buffer, format="TIFF", exif=exif)
    else:
        image.convert("RGB").save(buffer, format="PNG", exif=exif)
    return decode_image(buffer.getvalue())
