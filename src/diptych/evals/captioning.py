"""Captioning: are the sentences that a model writes of held-out images true, and like those that people wrote?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageReader
from diptych.evals.bleu import bleu_counts, bleu_estimate, bleu_of
from diptych.evals.caption_words import caption_words
from diptych.evals.cider import SCALE, Cider
from diptych.evals.clip_score import Convention, Judgement, judge_captions, judgement_estimates, open_scorer
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable, some
from diptych.evals.fact_metrics import SceneFacts
from diptych.evals.items import item_table
from diptych.evals.rouge import rouge_scores
from diptych.evals.scene_facts import is_scene
from diptych.evals.scoring import choose_places, describe_broken, paired_values, thumbnail
from diptych.evals.statistics import mean_estimate, paired_difference, share_estimate
from diptych.evals.written import Written, captions_of, dealt_out, write_captions
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained

BLEU = (1, 2, 3, 4)
"""Up to how many words n-grams are counted, in each BLEU."""

DEALS = 5
"""How often the captions are dealt out to wrong images, to find what chance reaches."""


class CaptioningConfig(EvalConfig):
    """Settings of the captioning eval. Captions are written greedily, or by a beam."""

    prompt: str = ""
    """What the caption is to go on from, such as "a picture of"; it counts as part of the caption."""
    beams: int = Field(1, ge=1)
    max_tokens: int = Field(0, ge=0)
    """At most so many tokens a caption; 0: what the model's context holds."""
    blind: bool = True
    """Compare with what the model writes of a blank image."""
    batch_size: int = Field(64, ge=1)
    bootstrap: int = Field(1000, ge=100)
    seed: int = 0
    pictures: int = Field(24, ge=0)
    """How many captions with their images go into the report: as they come, the best and the worst."""
    scorer: str = ""
    """Another model that embeds images and words and judges the captions (CLIPScore): a run's folder, openclip:PATH or
    hf:PATH; empty: none."""
    clip_convention: Convention = "hessel"
    """What its cosines are made into: Hessel's CLIPScore, or torchmetrics' (`evals/clip_score.py`)."""

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 300}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no captions of one image."""
        captioned = sum(bool(captions_of(data, p)) for p in some(data))
        return super().unsuited(model, data) or ("" if captioned > 1 else "its records have no captions")

    def build(self) -> "Captioning":
        """The eval."""
        return Captioning(self)


class Captioning(Eval):
    """CIDEr-D, BLEU, ROUGE-L and exact matches of the captions that a model writes, with intervals over images; and
    CLIPScore, where another model is named that judges them. METEOR and SPICE need Java and are left out.

    Chance is what the model's own captions reach when they are dealt out to wrong images: a model that always says the
    same never lies above it, however well it writes. On the `scenes` corpus every fact that a caption claims is checked
    (`evals/scene_facts.py`). How rare a word is, is counted once over the split's references, and stays so while images
    are resampled.
    """

    needs: ClassVar[tuple[str, ...]] = ("generate_text",)
    headline: ClassVar[str] = "cider"
    best: ClassVar[float] = SCALE

    def __init__(self, config: CaptioningConfig) -> None:
        self.config = config

    def run(self, model: Pretrained, data: Any, artifacts: bool = True) -> EvalResult:
        """Evaluate `model` on the split `data`."""
        config = self.config
        require(model.model, self.needs, "captioning")
        judge = open_scorer(config.scorer, model) if config.scorer else None
        places = choose_places(data, config.max_items)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        references = {p: texts for p in places if (texts := captions_of(data, p))}
        how: dict[str, Any] = {"beams": config.beams, "max_tokens": config.max_tokens}
        written = write_captions(model, reader, references, config.prompt, config.blind, **how)
        deals = dealt_out(written.clusters, DEALS, config.seed)
        judged = None
        if judge is not None:
            judged = judge_captions(judge, data, written, deals, config.clip_convention, config.batch_size)
        scores = CaptionScores(written, deals, config, judged)
        metrics = scores.metrics()
        meta = [data.meta(p) for p in written.places]
        facts = SceneFacts(meta, written, deals, config.bootstrap, config.seed) if all(map(is_scene, meta)) else None
        if facts is not None:
            metrics |= facts.metrics()
        settings = {
            "images": len(written.places),
            "images_without_caption": len(places) - len(references),
            "broken_images": describe_broken(reader),
            **({} if judge is None else {"scorer_fingerprint": judge.fingerprint}),
            **_variety(written),
        }
        tables: dict[str, Any] = {}
        items: dict[str, ItemTable] = {}
        if artifacts:
            values = scores.values() | ({} if facts is None else facts.values())
            items = {"images": item_table(map(data.uid, written.places), values, written.clusters)}
            tables = scores.tables(data) | ({} if facts is None else facts.tables())
        return config.result(
            model,
            data,
            metrics=metrics,
            settings=settings,
            items=items,
            artifacts=tables,
        )


class CaptionScores:
    """What the captions of a split are worth beside its references."""

    def __init__(
        self,
        written: Written,
        deals: list[Int64[np.ndarray, " n"]],
        config: CaptioningConfig,
        judged: Judgement | None = None,
    ) -> None:
        self.written, self.config, self.judged = written, config, judged
        said, references = written.captions, written.references
        self.scorer = Cider(references)
        self.cider = self.scorer.scores(said)
        self.counts = bleu_counts(said, references)
        self.exact = self._exact(said)
        self.rouge = rouge_scores(said, references)
        dealt = [[said[i] for i in deal.tolist()] for deal in deals]
        self.chance = {
            "cider": float(np.mean([self.scorer.scores(d) for d in dealt])),
            "exact_match": float(np.mean([self._exact(d) for d in dealt])),
            "rouge_l": float(np.mean([rouge_scores(d, references) for d in dealt])),
        }
        sums = [bleu_counts(d, references).sum(0, keepdims=True) for d in dealt]
        self.chance |= {f"bleu_{n}": float(np.mean([bleu_of(s, n) for s in sums])) for n in BLEU}

    def metrics(self) -> dict[str, Estimate]:
        """Each score with its interval and what chance reaches."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        clusters, chance = self.written.clusters, self.chance
        metrics = {
            "cider": _scaled(mean_estimate(self.cider / SCALE, clusters, chance["cider"] / SCALE, **how)),
            "bleu_4": bleu_estimate(self.counts, clusters, chance["bleu_4"], **how),
            "exact_match": share_estimate(self.exact, clusters, chance["exact_match"], **how),
            "rouge_l": mean_estimate(self.rouge, clusters, chance["rouge_l"], **how),
        }
        for n in BLEU[:-1]:
            metrics[f"bleu_{n}"] = bleu_estimate(self.counts, clusters, chance[f"bleu_{n}"], **how, n=n)
        if self.judged is not None:
            metrics |= judgement_estimates(self.judged, clusters, self.config.clip_convention, **how)
        if self.written.blank is not None:
            blind = self._blind()
            metrics["blind_cider"] = _scaled(mean_estimate(blind / SCALE, clusters, **how))
            test = paired_difference(self.cider, blind, clusters, seed=self.config.seed)
            metrics["cider_over_blind"] = Estimate(
                value=test.difference, low=test.low, high=test.high, chance=0.0, n=test.n
            )
        return metrics

    def values(self) -> dict[str, np.ndarray]:
        """What each image brought to the scores that are means over images (BLEU is none)."""
        values = {"cider": self.cider, "exact_match": self.exact, "rouge_l": self.rouge}
        if self.judged is not None:
            values |= {"clip_score": self.judged.clip_score, "ref_clip_score": self.judged.ref_clip_score}
        if self.written.blank is not None:
            blind = self._blind()
            values |= {"blind_cider": blind, "cider_over_blind": self.cider - blind}
        return values

    def tables(self, split: Any) -> dict[str, Any]:
        """Captions with their images, and the test against the same model shown nothing."""
        written, most = self.written, self.config.pictures
        order = np.argsort(-self.cider, kind="stable").tolist()
        shuffled = numpy_generator(self.config.seed, "captions_shown").permutation(len(order)).tolist()
        chosen = {"some": shuffled[:most], "best": order[:most], "worst": order[::-1][:most]}
        found: dict[str, Any] = {
            f"captions_{name}": [self._shown(split, i) for i in rows] for name, rows in chosen.items()
        }
        if written.blank is not None:
            test = paired_difference(self.cider, self._blind(), written.clusters, seed=self.config.seed)
            found["blank_caption"] = written.blank
            found["against_blind"] = {"cider": paired_values(test)}
        return found

    def _shown(self, split: Any, i: int) -> dict[str, Any]:
        place = self.written.places[i]
        return {
            "uid": split.uid(place),
            "thumb": thumbnail(split, place),
            "caption": self.written.captions[i],
            "references": list(self.written.references[i][:3]),
            "cider": round(float(self.cider[i]), 4),
            "exact": bool(self.exact[i]),
        }

    def _blind(self) -> Float64[np.ndarray, " n"]:
        assert self.written.blank is not None
        return self.scorer.scores([self.written.blank] * len(self.cider))

    def _exact(self, said: Sequence[str]) -> np.ndarray:
        """Whether each caption equals one of its image's references, but for case and punctuation."""
        pairs = zip(said, self.written.references, strict=True)
        return np.array([caption_words(c) in {caption_words(r) for r in texts} for c, texts in pairs])


def _variety(written: Written) -> dict[str, Any]:
    """How many different captions there are, and how long they are, beside the references'."""
    firsts = [texts[0] for texts in written.references]
    return {
        "distinct_captions": len(set(map(caption_words, written.captions))),
        "distinct_references": len(set(map(caption_words, firsts))),
        "words_a_caption": round(float(np.mean([len(caption_words(c)) for c in written.captions])), 2),
        "words_a_reference": round(float(np.mean([len(caption_words(c)) for c in firsts])), 2),
        "empty_captions": sum(not c.strip() for c in written.captions),
    }


def _scaled(e: Estimate) -> Estimate:
    """An estimate of a value that was divided by CIDEr's scale."""
    chance = None if e.chance is None else e.chance * SCALE
    return e.replace(value=e.value * SCALE, low=e.low * SCALE, high=e.high * SCALE, chance=chance)
