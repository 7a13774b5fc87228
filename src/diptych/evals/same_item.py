"""Any against any: does a picture (or a text) find the other pictures (or texts) of the same thing?"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, some
from diptych.evals.graded import Graded, chance_map_at_r, grade
from diptych.evals.items import item_table
from diptych.evals.ranking import Ties, chance_mean_reciprocal_rank, chance_recall, check_finite
from diptych.evals.scoring import choose_places, describe_broken, distinct, read_gallery, thumbnail
from diptych.evals.statistics import mean_estimate
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Histogram, Picture, Pictures, Words

What = Literal["image", "text"]

_CELLS = 1 << 21  # scores that are sorted at once


class SameItemConfig(EvalConfig):
    """Settings of the same-item eval."""

    query: What = "image"
    """What is asked with."""
    gallery: What = "image"
    """What is looked for; of the other records, never of the query's own."""
    same_field: str = "label"
    """The meta field that two records of one thing share: a product's number, a concept."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10), min_length=1)
    """The K of recall@K: whether any right answer is among the K best."""
    ties: Ties = "half"
    """How wrong items count that score as the best right one does: half, not at all (optimistic), whole."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(12, ge=0)
    """How many of the hardest queries are shown."""

    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 5000}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no such field, or where it hardly ever repeats."""
        values = [data.meta(p).get(self.same_field) for p in some(data, 200)]
        held = [str(v) for v in values if v not in (None, "")]
        repeats = len(set(held)) < len(held) or len(data) > 200
        return super().unsuited(model, data) or (
            f"no {self.same_field!r} in the meta"
            if not held
            else ""
            if repeats
            else f"no two share a {self.same_field}"
        )

    def build(self) -> "SameItem":
        """The eval."""
        return SameItem(self)


class _Side(NamedTuple):
    """What stands on one side: the record of each item, its vector, and a number that equal contents share."""

    places: Int64[np.ndarray, " n"]
    vectors: Tensor
    content: Int64[np.ndarray, " n"]
    words: list[str]


class SameItem(Eval):
    """Recall@K, mAP@R and MRR of finding other records with the same value of a meta field.

    Left out of a query's gallery, neither right nor wrong: what is of its own record, and what has the very same
    content (a copy, an equal caption). Queries that then have no right answer are counted and left out. mAP@R:
    Musgrave et al., "A Metric Learning Reality Check" (2020), https://arxiv.org/abs/2003.08505, section 3.3. Intervals
    are over the values of the field: the queries of one thing are not independent.
    """

    needs: ClassVar[tuple[str, ...]] = ("embed_image", "embed_text")
    headline: ClassVar[str] = "recall_at_1"

    def __init__(self, config: SameItemConfig) -> None:
        self.config = config
        sides = {config.query, config.gallery}
        self.needs = tuple(f"embed_{side}" for side in ("image", "text") if side in sides)

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        places = [p for p in choose_places(data, config.max_items) if self._thing(data, p)]
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        sides = {side: self._side(side, model, reader, places) for side in {config.query, config.gallery}}
        query, gallery = sides[config.query], sides[config.gallery]
        things = {thing: n for n, thing in enumerate(dict.fromkeys(self._thing(data, p) for p in places))}
        of_query, of_gallery = (
            np.array([things[self._thing(data, p)] for p in side.places.tolist()], np.int64)
            for side in (query, gallery)
        )
        graded, best = self._graded(query, gallery, of_query, of_gallery)
        asked = np.flatnonzero(graded.right)
        if len(np.unique(of_query[asked])) < 2:
            raise EvalError(
                f"same_item must be given at least 2 values of {config.same_field!r} that two records share; got "
                f"{len(np.unique(of_query[asked]))} in {data.name}. Name another meta field: same_field=FIELD."
            )
        graded, things_asked = graded.of(asked), of_query[asked]
        settings = {
            "queries": len(asked),
            "without_a_right_answer": len(of_query) - len(asked),
            "gallery_items": len(of_gallery),
            "things": len(np.unique(things_asked)),
            "records_without_field": len(choose_places(data, config.max_items)) - len(places),
            "broken_images": describe_broken(reader),
        }
        uids = [data.uid(int(p)) for p in query.places[asked]]
        keys = [f"{uid}#{n}" for uid, n in zip(uids, _occurrence(query.places[asked]), strict=True)]
        return config.result(
            model,
            data,
            metrics=self._metrics(graded, things_asked),
            settings=settings,
            items={"queries": item_table(keys, self._values(graded), things_asked)} if artifacts else {},
            figures=self._figures(data, query, gallery, asked, graded, best[asked]) if artifacts else (),
        )

    def _thing(self, data: Any, place: int) -> str:
        value = data.meta(place).get(self.config.same_field)
        return "" if value is None else str(value)

    def _side(self, what: What, model: Pretrained, reader: ImageReader, places: list[int]) -> _Side:
        if what == "image":
            found = read_gallery(model, reader, places, "same_item", True)
            assert found.vectors is not None
            return _Side(np.array(found.places), found.vectors, distinct(found.hashes), [])
        told = [(p, text) for p in places for text in dict.fromkeys(reader.split.captions(p))]
        if not told:
            raise EvalError(f"same_item must be given records with captions; got none in {reader.split.name}.")
        words = [text for _, text in told]
        kinds = {text: n for n, text in enumerate(dict.fromkeys(words))}
        content = np.array([kinds[text] for text in words])
        return _Side(np.array([p for p, _ in told]), model.embed_text(list(kinds))[content], content, words)

    def _graded(
        self, query: _Side, gallery: _Side, of_query: Int64[np.ndarray, " q"], of_gallery: Int64[np.ndarray, " g"]
    ) -> tuple[Graded, Int64[np.ndarray, "q 3"]]:
        """How each query did, and its best three answers."""
        parts, best = [], []
        step = max(1, _CELLS // len(gallery.places))
        same_kind = self.config.query == self.config.gallery
        for start in range(0, len(query.places), step):
            mine = slice(start, start + step)
            scores = query.vectors[mine] @ gallery.vectors.T
            check_finite(scores)
            itself = query.places[mine, None] == gallery.places
            if same_kind:
                itself |= query.content[mine, None] == gallery.content
            right = (of_query[mine, None] == of_gallery) & ~itself
            parts.append(grade(scores.numpy(), right, itself, self.config.ties))
            masked = scores.masked_fill(torch.from_numpy(itself), -torch.inf)
            best.append(masked.topk(min(3, masked.shape[1]), dim=1).indices.numpy())
        return Graded.joined(parts), np.concatenate(best)

    def _metrics(self, graded: Graded, things: Int64[np.ndarray, " q"]) -> dict[str, Estimate]:
        chance = {
            f"recall_at_{k}": _mean_over_sizes(graded, lambda r, g, k=k: chance_recall(r, g, k)) for k in self.config.k
        }
        chance["mrr"] = _mean_over_sizes(graded, chance_mean_reciprocal_rank)
        chance["map_at_r"] = _mean_over_sizes(graded, chance_map_at_r)
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        return {name: mean_estimate(v, things, chance[name], **how) for name, v in self._values(graded).items()}

    def _values(self, graded: Graded) -> dict[str, Float64[np.ndarray, " q"]]:
        recalls = {f"recall_at_{k}": (graded.rank <= k).astype(float) for k in self.config.k}
        return {**recalls, "map_at_r": graded.map_at_r, "mrr": 1 / graded.rank}

    def _figures(
        self, data: Any, query: _Side, gallery: _Side, asked: np.ndarray, graded: Graded, best: np.ndarray
    ) -> tuple[Figure, ...]:
        starts = 2 ** np.arange(int(np.log2(graded.rank.max())) + 2)
        counts, _ = np.histogram(graded.rank, bins=starts)
        histogram = Histogram(
            title="Where the first right answer stood",
            starts=tuple(map(float, starts[:-1])),
            counts=tuple(map(float, counts)),
            x_label="rank",
        )
        worst = np.lexsort((asked, -graded.rank))[: self.config.pictures].tolist()
        if "image" not in (self.config.query, self.config.gallery):
            rows = tuple((query.words[asked[n]], gallery.words[best[n, 0]], f"{graded.rank[n]:g}") for n in worst)
            return histogram, Words(
                title="Hardest queries", head=("asked", "found", "rank of the first right one"), rows=rows, numeric=(2,)
            )
        shown: list[Picture] = []
        for n in worst:
            rank = f"first right one at {graded.rank[n]:g} of {graded.gallery[n]:g}"
            shown.append(self._picture(data, query, int(asked[n]), "asked: ", rank))
            shown += [self._picture(data, gallery, int(i), "found: ", "") for i in best[n]]
        words = "Each query, followed by the three items that it found first."
        return histogram, Pictures(title="Hardest queries", words=words, pictures=tuple(shown), shown=16)

    def _picture(self, data: Any, side: _Side, item: int, before: str, detail: str) -> Picture:
        place = int(side.places[item])
        words = side.words[item] if side.words else self._thing(data, place)
        return Picture(image=thumbnail(data, place), caption=before + words, detail=detail)


def _mean_over_sizes(graded: Graded, chance: Any) -> float:
    """The mean over queries of a chance level that is told the numbers of right answers and the gallery's size."""
    sizes, times = np.unique(graded.gallery, return_counts=True)
    return float(np.average([chance(graded.right[graded.gallery == g], int(g)) for g in sizes], weights=times))


def _occurrence(places: Sequence[int] | np.ndarray) -> list[int]:
    """How many items of the same record came before each."""
    seen: dict[int, int] = {}
    found = []
    for place in map(int, places):
        found.append(seen.get(place, 0))
        seen[place] = found[-1] + 1
    return found
