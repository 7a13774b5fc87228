"""Bias on the user's own groups: whose images are found first, who is mistaken, and which words go with whom."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field, field_validator

from diptych.core.errors import EvalError
from diptych.evals.association import Association, Spread, association_test
from diptych.evals.eval import Estimate, Eval, EvalResult, ItemTable
from diptych.evals.group_queries import read_queries
from diptych.evals.groups import (
    FEW_ITEMS,
    GroupGap,
    Groups,
    find_field,
    group_counts,
    group_estimates,
    group_gap,
    read_groups,
)
from diptych.evals.item_hits import LOOK, HitConfig, Hits, item_hits
from diptych.evals.items import item_table
from diptych.evals.scoring import EmbeddedItems, ScoredItems, choose_places, describe_broken, thumbnail
from diptych.evals.skew import Desired, RankedGroups, desired_distribution, rank_images, ranked_groups, skew_tests
from diptych.evals.statistics import share_estimate, stratified_mean
from diptych.models.pretrained import Pretrained
from diptych.report.figures import Figure, Interval, Intervals, Matrix, Picture, Pictures, Words

SHOWN = 16
"""Images of the most skewed query that a report shows."""


class BiasConfig(HitConfig):
    """Settings of the bias eval."""

    full: ClassVar[Mapping[str, Any] | None] = {"max_items": 2000, "most_scored": 200}
    group_field: str = ""
    """Which value of a record's meta is its group; empty: group, gender, sex, race, ethnicity or age, what there is."""
    least: int = Field(1, ge=1)
    """Groups of fewer images are left out (and named); those of fewer than 30 are warned of in any case."""
    queries: str | tuple[str, ...] = ""
    """What is searched for: texts, or a file with one a line; empty: the classes, or the most common captions of
    several groups that name none. Choose such as should not depend on the group."""
    most_queries: int = Field(20, ge=1)
    """At most so many of the queries that are found in the data."""
    k: int = Field(0, ge=0)
    """The K of MaxSkew@K; 0: a tenth of the images, from 10 to 100."""
    depth: int = Field(1000, ge=1)
    """How many places of a ranking NDKL looks at."""
    desired: Desired = "population"
    """The distribution a ranking should have: of the images searched (parity), or every group alike (equal
    opportunity, "uniform")."""
    targets: tuple[str | tuple[str, ...], ...] = ()
    """Of the association test: two sets, each a list of prompts, or a group's name for the images of that group."""
    attributes: tuple[str | tuple[str, ...], ...] = ()
    """The two sets of attributes, in the same way."""
    spread: Spread = "sample"
    """The standard deviation in the effect size."""
    permutations: int = Field(10_000, ge=100)
    skew_draws: int = Field(200, ge=20)
    """Permutations, and resamples, of the rankings."""

    @field_validator("targets", "attributes")
    @classmethod
    def _two(cls, sets: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(sets) not in (0, 2):
            raise ValueError(f"BiasConfig.targets and .attributes must be two sets each; got {len(sets)}.")
        return sets

    def build(self) -> "Bias":
        """The eval."""
        return Bias(self)

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """No group, or one only."""
        if reason := super().unsuited(model, data):
            return reason
        metas = [data.meta(p) for p in choose_places(data, LOOK)]
        field = find_field(metas, self.group_field)
        values = {str(m[field]) for m in metas if m.get(field) is not None} if field else set()
        if len(values) < 2:
            return f"no groups in the meta ({field or 'name them by group_field'})"
        return ""


class Bias(Eval):
    """MaxSkew@k and NDKL of what queries find, the worst group's accuracy and the gap to the best, an association test.

    Each with an interval and what it is without any bias: groups permuted among the images (skew, gap), divisions of
    the targets (association). Definitions: docs/reference/evals-bias-geometry.md.
    """

    needs: ClassVar[tuple[str, ...]] = ("score",)
    headline: ClassVar[str] = "worst_group_accuracy"

    def __init__(self, config: BiasConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`, whose records must say their group in their meta."""
        config = self.config
        hits = item_hits(model, data, config, "bias")
        groups = read_groups(data, hits.gallery.places, config.group_field, config.least)
        found = _Found(config, model, data, hits, groups)
        metrics, p_values = found.metrics()
        few = {name: int(n) for name, n in zip(groups.names, groups.sizes, strict=True) if n < FEW_ITEMS}
        settings = {
            "group_field": groups.field,
            "k": found.k,
            "groups": dict(zip(groups.names, groups.sizes.tolist(), strict=True)),
            "few_items": few,
            "left_out_groups": groups.left_out,
            "images_without_group": groups.without,
            "choices": hits.asked,
            "queries": list(found.queries),
            "queries_from": found.source,
            "p_values": p_values,
            "scored_by": hits.scoring.by,
            "broken_images": describe_broken(hits.reader),
        }
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=settings,
            items=found.items() if artifacts else {},
            figures=found.figures() if artifacts else (),
        )


class _Found:
    """What was found of a split's groups: of the images that have one, in the gallery's order."""

    def __init__(self, config: BiasConfig, model: Pretrained, split: Any, hits: Hits, groups: Groups) -> None:
        self.config, self.model, self.split, self.hits, self.groups = config, model, split, hits, groups
        self.mine = np.flatnonzero(groups.of >= 0)
        self.of = groups.of[self.mine]
        self.places = [hits.gallery.places[i] for i in self.mine.tolist()]
        self.right, self.chance = hits.right[self.mine], float(hits.chance[self.mine].mean())
        self.k = config.k or min(100, max(10, len(self.mine) // 10))
        self.k = min(self.k, len(self.mine))
        self.queries, self.source = read_queries(
            config.queries, split, hits.gallery.places, groups, hits.names, config.most_queries
        )
        self.order = self._order() if self.queries else None
        self.gap: GroupGap | None = None
        self.association: Association | None = None

    def metrics(self) -> tuple[dict[str, Estimate], dict[str, float]]:
        """The numbers, and the p-values of "no difference", "no skew" and "no association"."""
        config = self.config
        metrics: dict[str, Estimate] = {}
        p_values: dict[str, float] = {}
        how = {"samples": config.bootstrap, "seed": config.seed}
        if self.hits.asked != "none":
            counts, sizes = group_counts(self.groups, self.hits.right), self.groups.sizes
            gap = self.gap = group_gap(counts, sizes, self.chance, config.permutations, config.seed)
            metrics["worst_group_accuracy"] = gap.worst
            metrics["group_gap"] = gap.gap
            metrics["accuracy"] = share_estimate(self.right, None, self.chance, **how)
            metrics["group_mean_accuracy"] = stratified_mean(counts, sizes, self.chance, **how)
            p_values |= {"group_gap": gap.p_gap, "any_difference": gap.p_any}
        if self.order is not None:
            args = (self.k, config.depth, config.desired, config.skew_draws, config.skew_draws, config.seed)
            for name, test in skew_tests(self.order, self.of, *args).items():
                metrics[f"max_skew_at_{self.k}" if name == "max_skew" else name] = test.estimate
                p_values[name] = test.p_value
        if config.targets or config.attributes:
            found = self.association = self._association()
            n = sum(len(s) for s in self._sets(config.targets))
            metrics["association"] = Estimate(value=found.effect, low=found.low, high=found.high, chance=0.0, n=n)
            p_values["association"] = found.p_value
        return metrics, p_values

    def items(self) -> dict[str, ItemTable]:
        """Each image's hit, and each query's skew."""
        tables: dict[str, ItemTable] = {}
        if self.hits.asked != "none":
            weight = len(self.of) / (len(self.groups.names) * self.groups.sizes[self.of])
            values = {"accuracy": self.right, "group_mean_accuracy": self.right * weight}
            tables["images"] = item_table(map(self.split.uid, self.places), values)
        if self.order is not None:
            by_query = self._by_query()
            values = {f"max_skew_at_{self.k}": by_query.max_skew, "ndkl": by_query.ndkl}
            tables["queries"] = item_table(self.queries, values)
        return tables

    def figures(self) -> tuple[Figure, ...]:
        """By group, by query, and the association."""
        figures: list[Figure] = []
        if self.gap is not None:
            figures += [self._groups_figure(self.gap), self._tests_figure(self.gap)]
        if self.order is not None:
            figures += self._query_figures()
        if self.association is not None:
            figures.append(self._association_figure(self.association))
        few = [(name, str(n)) for name, n in zip(self.groups.names, self.groups.sizes, strict=True) if n < FEW_ITEMS]
        if few:
            words = f"Of fewer than {FEW_ITEMS} images: one image moves such a group's share by over 3 points."
            figures.append(Words(title="Small groups", words=words, head=("group", "images"), rows=tuple(few)))
        return tuple(figures)

    def _order(self) -> Int64[np.ndarray, "q n"]:
        hits = self.hits
        texts = list(self.queries)
        items: EmbeddedItems | ScoredItems
        if hits.gallery.vectors is not None:
            items = EmbeddedItems(hits.gallery.vectors[self.mine], self.model.embed_text(texts))
        else:
            items = ScoredItems(self.model, hits.reader, self.places, texts, hits.scoring)
        return rank_images(items.columns(range(len(texts))).numpy(), self.config.seed)

    def _by_query(self) -> RankedGroups:
        assert self.order is not None
        desired = desired_distribution(self.of, len(self.groups.names), self.config.desired)
        return ranked_groups(self.of[self.order[:, : self.config.depth]], self.k, desired)

    def _association(self) -> Association:
        config = self.config
        if not (config.targets and config.attributes):
            raise EvalError(
                "an association test must have two sets of targets and two of attributes; got only one kind. Give both."
            )
        if self.hits.gallery.vectors is None:
            raise EvalError(
                f"an association test must be given a model that embeds; got {type(self.model.model).__name__}, "
                f"scored by {self.hits.scoring.by}. Leave targets and attributes out."
            )
        x, y = self._sets(config.targets)
        a, b = self._sets(config.attributes)
        return association_test(x, y, a, b, config.spread, config.permutations, config.bootstrap, config.seed)

    def _sets(self, sets: tuple[str | tuple[str, ...], ...]) -> list[Float[np.ndarray, "_ e"]]:
        vectors, names = self.hits.gallery.vectors, self.groups.names
        assert vectors is not None
        found = []
        for given in sets:
            if isinstance(given, str):
                if given not in names:
                    raise EvalError(
                        f"a set of an association test must be a list of prompts or a group; got {given!r}. The groups "
                        f"are: {', '.join(names)}."
                    )
                found.append(vectors[self.mine[self.of == names.index(given)]].numpy())
            else:
                found.append(self.model.embed_text(list(given)).numpy())
        return found

    def _groups_figure(self, gap: GroupGap) -> Figure:
        counts, sizes = group_counts(self.groups, self.hits.right), self.groups.sizes
        estimates = group_estimates(counts, sizes, self.chance, self.config.bootstrap, self.config.seed)
        names = [f"{x} (few)" if n < FEW_ITEMS else x for x, n in zip(self.groups.names, sizes, strict=True)]
        rows = sorted(zip(names, estimates, strict=True), key=lambda row: row[1].value)
        words = (
            f"Whether an image's {'class' if self.hits.asked == 'labels' else 'own caption'} comes first, by "
            f"{self.groups.field}; each group's interval is its own. Worst: {self.groups.names[gap.worst_group]}."
        )
        return Intervals(title="Accuracy by group", words=words, rows=tuple(_row(name, e) for name, e in rows))

    def _tests_figure(self, gap: GroupGap) -> Figure:
        verdict = "a difference" if min(gap.p_gap, gap.p_any) < 0.025 else "none that noise could not make"
        words = (
            f"Verdict: {verdict} (the smaller of two p-values, doubled, against 5 %). Noise alone makes a gap too: "
            "its level is what groups show whose names are dealt out anew among the images."
        )
        e, limit = gap.gap, f"{gap.null_high:.1%}"
        rows = (
            (
                "gap between best and worst",
                f"{e.value:.1%}",
                f"{e.chance:.1%}",
                limit,
                f"{gap.p_gap:.3g}",
            ),
            ("any difference (chi-square)", "", "", "", f"{gap.p_any:.3g}"),
        )
        head = ("", "found", "by noise", "19 of 20 times below", "p")
        return Words(title="Do the groups differ?", words=words, head=head, rows=rows, numeric=(1, 2, 3, 4))

    def _query_figures(self) -> list[Figure]:
        assert self.order is not None
        found, names, k = self._by_query(), self.groups.names, self.k
        desired = desired_distribution(self.of, len(names), self.config.desired)
        worst = np.argsort(-found.max_skew, kind="stable").tolist()
        rows = tuple(
            (self.queries[q], f"{found.max_skew[q]:.3f}", f"{found.ndkl[q]:.4f}", names[found.most[q]]) for q in worst
        )
        against = "the images' own" if self.config.desired == "population" else "every group alike"
        table = Words(
            title="Queries by skew",
            words=f"MaxSkew@{k} and NDKL against {against}; 0 is no skew. Queries: {self.source}.",
            head=("query", f"MaxSkew@{k}", "NDKL", "over-represented"),
            rows=rows,
            numeric=(1, 2),
        )
        top = np.stack([(self.of[self.order[:, :k]] == g).mean(1) for g in range(len(names))], 1)
        shares = Matrix(
            title=f"Groups among the first {k}",
            words="Shares in percent; the first row is what they should be.",
            values=tuple(tuple((100 * row).tolist()) for row in (desired, *top[worst])),
            row_names=("(desired)", *(self.queries[q] for q in worst)),
            column_names=names,
            digits=0,
        )
        first = self.order[worst[0], :SHOWN].tolist()
        pictures = tuple(
            Picture(image=thumbnail(self.split, self.places[i]), caption=names[self.of[i]], detail=f"place {n}")
            for n, i in enumerate(first, 1)
        )
        words = f'The first images for "{self.queries[worst[0]]}", and their groups.'
        return [table, shares, Pictures(title="The most skewed query", words=words, pictures=pictures)]

    def _association_figure(self, found: Association) -> Figure:
        def said(sets: tuple[str | tuple[str, ...], ...]) -> list[str]:
            return [f"images of {s}" if isinstance(s, str) else ", ".join(s) for s in sets]

        (x, y), (a, b) = said(self.config.targets), said(self.config.attributes)
        how = "all" if found.exact else "random"
        rows = (
            ("targets X", x),
            ("targets Y", y),
            ("attributes A", a),
            ("attributes B", b),
            ("effect size d", f"{found.effect:.3f} [{found.low:.3f}, {found.high:.3f}]"),
            ("one-sided p", f"{found.p_value:.3g} ({how} {found.divisions:,} divisions)"),
        )
        words = "d > 0: X lies nearer to A and Y nearer to B than the other way round, in standard deviations."
        return Words(title="Association", words=words, head=("", ""), rows=rows)


def _row(name: str, e: Estimate) -> Interval:
    return Interval(name=name, value=e.value, low=e.low, high=e.high, chance=e.chance, n=e.n)
