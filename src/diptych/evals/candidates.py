"""Items of which one caption is right and others are wrong, scored against their image by whatever the model can do."""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.core.seeds import permute
from diptych.data.image_reader import ImageReader
from diptych.evals.ranking import TIE, check_finite
from diptych.evals.scoring import ScoredItems, Scoring, blank_images, read_gallery
from diptych.models.pretrained import Pretrained
from diptych.models.writer import LOGITS, Writer


class Item(NamedTuple):
    """An image of a split with its captions, the right one first. `set`: what it belongs to, if it says so."""

    place: int
    test: str
    group: str
    set: Hashable
    texts: tuple[str, ...]

    @property
    def chance(self) -> float:
        """The chance that a guess is right."""
        return 1 / len(self.texts)


class Scored(NamedTuple):
    """Readable items, a number an item that is equal for those that belong together (a set, else an image), and the
    scores of their captions: with the image, with a blank one, and by the words alone (of models that write).

    Rows are padded with minus infinity.
    """

    items: list[Item]
    clusters: Int64[np.ndarray, " n"]
    image: Float64[np.ndarray, "n k"]
    blank: Float64[np.ndarray, "n k"]
    prior: Float64[np.ndarray, "n k"] | None


class CandidateScores(ScoredItems):
    """Scores of each image against texts of its own, and of none: those alone that are asked for."""

    @torch.inference_mode()
    def of_each(self, candidates: Sequence[Sequence[int]]) -> list[Tensor]:
        """Scores of every image against its texts."""
        found: list[Tensor] = []
        writes = isinstance(self.model.model, Writer) and self.scoring.by == "log_likelihood"
        for batch in self.reader.batches(self.places):
            mine = candidates[len(found) : len(found) + len(batch.places)]
            images = batch.images.to(self.model.device)
            scores = (self._of_writer if writes else self._of_sets)(images, mine)
            if self.scoring.by == "log_likelihood":
                scores = [self._adjusted(s[None], texts)[0] for s, texts in zip(scores, mine, strict=True)]
            if self.scoring.image_prior_removed:
                scores = [s - p for s, p in zip(scores, self._image_priors(batch).tolist(), strict=True)]
            found += scores
        return found

    def _of_sets(self, images: Tensor, candidates: Sequence[Sequence[int]]) -> list[Tensor]:
        """A block of scores for images that have the same texts, so that none is computed that nobody asked for."""
        scores = [torch.empty(0)] * len(images)
        together: dict[tuple[int, ...], list[int]] = {}
        for row, texts in enumerate(candidates):
            together.setdefault(tuple(sorted(texts)), []).append(row)
        for texts, rows in together.items():
            block = self._scored(images[rows], [self._batch(texts)])[0].to("cpu", torch.float32)
            place = {t: n for n, t in enumerate(texts)}
            for row, values in zip(rows, block, strict=True):
                scores[row] = values[[place[t] for t in candidates[row]]]
        return scores

    def _of_writer(self, images: Tensor, candidates: Sequence[Sequence[int]]) -> list[Tensor]:
        """Every image is read once, and then each of its texts behind it, a row a text: `Writer.likelihoods` without
        the texts of other images."""
        network: Any = self.model.model
        state = network.begin_images(images)
        rows = [(image, text) for image, texts in enumerate(candidates) for text in texts]
        found = torch.empty(len(rows))
        order = sorted(range(len(rows)), key=lambda n: len(self._rows[rows[n][1]].ids))
        longest = len(self._rows[rows[order[-1]][1]].ids)
        some = max(1, min(256, LOGITS // (longest * network.vocab_size)))
        for part in (order[i : i + some] for i in range(0, len(order), some)):
            tokens, lengths = self._batch([rows[n][1] for n in part])
            tokens = tokens[:, : int(lengths.max())]
            of_image = torch.tensor([rows[n][0] for n in part], device=tokens.device)
            hidden = network.read(state.select(of_image), tokens[:, :-1], (lengths - 1).clamp(min=0))
            chosen = network.logits(hidden).float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
            real = (torch.arange(tokens.shape[1] - 1) < (lengths - 1)[:, None]).to(chosen.device)
            found[part] = chosen.where(real, 0.0).sum(1).to("cpu", torch.float32)
        return list(found.split([len(texts) for texts in candidates]))

    @torch.inference_mode()
    def of_blank(self) -> Float[Tensor, " t"]:
        """Scores of all texts against an image on which nothing is to be seen."""
        blank = blank_images(self.reader.format, 1).to(self.model.device)
        scores = torch.empty(len(self.texts))
        for part in self._parts():
            block = self._scored(blank, [self._batch(part)])[0].to("cpu", torch.float32)
            scores[part] = (self._adjusted(block, part) if self.scoring.by == "log_likelihood" else block)[0]
        return scores

    @torch.inference_mode()
    def of_none(self) -> Float[Tensor, " t"]:
        """log p(text) of all texts."""
        return self._priors()

    def _parts(self, size: int = 128) -> list[list[int]]:
        order = sorted(range(len(self.texts)), key=lambda t: len(self._rows[t].ids))
        return [order[i : i + size] for i in range(0, len(order), size)]


def read_items(split: Any, max_items: int, test: str = "") -> tuple[list[Item], int]:
    """The items of a split, and how many records have none: their meta must hold `distractors`, a list of captions that
    are wrong, or by the name of a test such a list. `test`: what to call a test without a name.

    At most about `max_items` (0: all), always the same ones, spread over the split; what is one set stays together.
    """
    items: list[Item] = []
    without = 0
    for place in range(len(split)):
        meta, captions = split.meta(place), split.captions(place)
        tests = distractors_of(meta, test)
        if not tests or not captions:
            without += 1
            continue
        for name, wrong in tests.items():
            items.append(Item(place, name, str(meta.get("group") or ""), meta.get("set"), (captions[0], *wrong)))
    if not max_items or max_items >= len(items):
        return items, without
    units: dict[Hashable, list[Item]] = {}
    for item in items:
        units.setdefault(("set", item.set) if item.set is not None else item.place, []).append(item)
    lists, chosen = list(units.values()), list[Item]()
    for i in range(len(lists)):
        chosen += lists[permute(i, len(lists), "max_items")]
        if len(chosen) >= max_items:
            break
    return sorted(chosen, key=lambda item: item.place), without


def distractors_of(meta: Any, test: str = "") -> dict[str, tuple[str, ...]]:
    """By the name of a test the captions that are wrong, as a record's meta tells them; {} if it tells none."""
    given = meta.get("distractors")
    if isinstance(given, list):
        given = {str(meta.get("test") or test or "test"): given}
    if not isinstance(given, dict):
        return {}
    return {
        str(name): tuple(wrong)
        for name, wrong in given.items()
        if isinstance(wrong, list) and wrong and all(isinstance(t, str) for t in wrong)
    }


def score_items(model: Pretrained, reader: ImageReader, items: Sequence[Item], scoring: Scoring, who: str) -> Scored:
    """Score the captions of every item whose image can be read."""
    gallery = read_gallery(model, reader, list(dict.fromkeys(i.place for i in items)), who, scoring.by == "embeddings")
    row = {place: n for n, place in enumerate(gallery.places)}
    kept = [i for i in items if i.place in row]
    texts = list(dict.fromkeys(t for item in kept for t in item.texts))
    number = {t: n for n, t in enumerate(texts)}
    candidates = [[number[t] for t in item.texts] for item in kept]
    rows = [row[i.place] for i in kept]
    units = [("set", i.set) if i.set is not None else gallery.hashes[r] for i, r in zip(kept, rows, strict=True)]
    seen: dict[Hashable, int] = {}
    clusters = np.array([seen.setdefault(unit, len(seen)) for unit in units], dtype=np.int64)
    prior = None
    if gallery.vectors is not None:
        words = model.embed_text(texts)
        network: Any = model.model
        with torch.inference_mode():
            empty = network.embed_image(blank_images(reader.format, 1).to(model.device)).float().cpu()[0]
        image = [words[c] @ gallery.vectors[r] for c, r in zip(candidates, rows, strict=True)]
        blank = words @ empty
    else:
        scorer = CandidateScores(model, reader, [i.place for i in kept], texts, scoring)
        image, blank = scorer.of_each(candidates), scorer.of_blank()
    if "log_likelihood" in model.capabilities and scoring.by != "embeddings":
        prior = CandidateScores(model, reader, [], texts, scoring).of_none()
    return Scored(
        kept,
        clusters,
        padded(image),
        padded([blank[c] for c in candidates]),
        None if prior is None else padded([prior[c] for c in candidates]),
    )


def padded(rows: Sequence[Sequence[float] | Tensor]) -> Float64[np.ndarray, "n k"]:
    """Rows of scores as one array, minus infinity where there is none. Raises EvalError for scores that are none."""
    found = np.full((len(rows), max(map(len, rows))), -np.inf)
    for n, row in enumerate(rows):
        check_finite(torch.as_tensor(row))
        found[n, : len(row)] = np.asarray(row, dtype=np.float64)
    return found


def hits(scores: Float64[np.ndarray, "n k"], ties: str) -> Float64[np.ndarray, " n"]:
    """Whether the first score of each row is its highest. Of a first that ties with m others, `ties` says: "share"
    1 / (1 + m), what a guess among them is right of; "wrong" 0; "right" 1.

    Scores tie that differ by less than ranking.TIE (relative): rounding depends on how they were computed.
    """
    first, others = scores[:, :1], scores[:, 1:]
    slack = TIE * np.maximum(1.0, np.abs(first))
    lost = (others > first + slack).any(1)
    equal = (np.abs(others - first) <= slack).sum(1)
    worth = {"share": 1 / (1 + equal), "wrong": (equal == 0).astype(float), "right": np.ones(len(scores))}
    if ties not in worth:
        raise EvalError(f"ties must be one of {', '.join(worth)}; got {ties!r}.")
    return np.where(lost, 0.0, worth[ties])


def margins(scores: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """By how much the first score of each row exceeds the best of the others."""
    return scores[:, 0] - scores[:, 1:].max(1, initial=-math.inf)
