"""What a report shows of a retrieval: the best and the worst both ways, the similarity matrix, the ranks' histogram."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diptych.evals.ranking import Matches, Ranks
from diptych.evals.scoring import Gallery, Items, rounded, thumbnail


class RetrievalPictures:
    """What a report shows of a retrieval: the best and the worst both ways, the similarity matrix, the histogram."""

    def __init__(
        self,
        split: Any,
        gallery: Gallery,
        matches: Matches,
        texts: list[str],
        items: Items,
        found: Ranks,
        pictures: int = 24,
        similarity: int = 64,
    ) -> None:
        self.split, self.matches, self.texts = split, matches, texts
        self.items, self.found = items, found
        self.pictures, self.similarity = pictures, similarity
        self.places = np.array(gallery.places)[matches.first_image.numpy()]  # of the distinct images
        image, text = matches.pairs.numpy().T
        self.starts = np.searchsorted(image, np.arange(len(self.places) + 1))
        self.image_of_text = np.zeros(len(texts), np.int64)
        self.image_of_text[text[::-1]] = image[::-1]  # the first of each text's, which is written last

    def all(self) -> dict[str, Any]:
        """Every artifact, as JSON values."""
        return {
            **self._text_to_image(),
            **self._image_to_text(),
            "similarity": self._similarity(),
            "rank_histogram": {
                "i2t": _histogram(self.found.i2t[self.matches.image_of]),
                "t2i": _histogram(self.found.t2i[self.matches.text_of]),
            },
        }

    def _text_to_image(self) -> dict[str, Any]:
        chosen = _ends(self.found.t2i, self.found.best_of_text, self.image_of_text, self.pictures)
        queries = sorted({t for texts in chosen.values() for t in texts})
        if not queries:
            return {}
        scores = dict(zip(queries, self.items.columns(queries).T, strict=True))
        return {f"t2i_{end}": [self._found_images(t, scores[t]) for t in texts] for end, texts in chosen.items()}

    def _found_images(self, text: int, scores: Tensor) -> dict[str, Any]:
        target = int(self.image_of_text[text])
        return {
            "query": self.texts[text],
            "rank": float(self.found.t2i[text]),
            "target": {**self._image(target), "score": float(scores[target])},
            "hits": [
                {**self._image(i), "score": float(scores[i]), "correct": text in self._texts_of(i)}
                for i in _top(scores)
            ],
        }

    def _image_to_text(self) -> dict[str, Any]:
        kinds = np.arange(len(self.places))
        chosen = _ends(self.found.i2t, self.found.best_of_image, kinds, self.pictures)
        return {f"i2t_{end}": [self._found_texts(i) for i in images] for end, images in chosen.items()}

    def _found_texts(self, image: int) -> dict[str, Any]:
        scores = self.items.rows(image, image + 1)[0]
        return {
            "query": {
                **self._image(image),
                "captions": [self.texts[t] for t in self._texts_of(image)],
                "score": float(self.found.best_of_image[image]),
            },
            "rank": float(self.found.i2t[image]),
            "hits": [
                {"caption": self.texts[t], "score": float(scores[t]), "correct": t in self._texts_of(image)}
                for t in _top(scores)
            ],
        }

    def _similarity(self) -> dict[str, Any]:
        size = min(self.similarity, len(self.places))
        if not size:
            return {"matrix": [], "captions": [], "thumbs": []}
        texts = [self._texts_of(i)[0] for i in range(size)]
        return {
            "matrix": rounded(self.items.rows(0, size)[:, texts]),  # rows: images
            "captions": [self.texts[t] for t in texts],
            "thumbs": [thumbnail(self.split, int(self.places[i]), 48) for i in range(size)],
        }

    def _texts_of(self, image: int) -> list[int]:
        return list(self.matches.pairs[self.starts[image] : self.starts[image + 1], 1].tolist())

    def _image(self, image: int) -> dict[str, Any]:
        place = int(self.places[image])
        captions = [self.texts[t] for t in self._texts_of(image)]
        return {"uid": self.split.uid(place), "thumb": thumbnail(self.split, place), "caption": captions[0]}


def _ends(ranks: Tensor, scores: Tensor, groups: Int64[np.ndarray, " q"], most: int) -> dict[str, list[int]]:
    """The `most` best and worst queries, at most one of each group; equal ranks by the right answer's score."""
    order = np.lexsort((-scores.numpy(), ranks.numpy()))
    ends: dict[str, list[int]] = {}
    for name, queue in (("best", order), ("worst", order[::-1])):
        chosen: dict[int, int] = {}
        for query in queue:
            if len(chosen) == most:
                break
            chosen.setdefault(int(groups[query]), int(query))
        ends[name] = list(chosen.values())
    return ends


def _top(scores: Tensor, k: int = 5) -> list[int]:
    return list(torch.sort(scores, descending=True, stable=True).indices[:k].tolist())


def _histogram(ranks: Tensor) -> dict[str, list[int]]:
    """How many queries have a rank in [1, 2), [2, 4), [4, 8), ...; `bins` are where they begin."""
    edges = 2 ** np.arange(int(np.log2(float(ranks.max()))) + 2)
    counts, _ = np.histogram(ranks.numpy(), bins=edges)
    return {"bins": edges[:-1].tolist(), "counts": counts.tolist()}
