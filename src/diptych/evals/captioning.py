"""Captioning: are the sentences that a model writes of held-out images true, and like those that people wrote?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from diptych.core.config import to_dict
from diptych.core.errors import EvalError
from diptych.core.seeds import numpy_generator
from diptych.data.image_reader import ImageReader
from diptych.evals.bleu import bleu_counts, bleu_estimate, bleu_of
from diptych.evals.caption_words import caption_words
from diptych.evals.cider import SCALE, Cider
from diptych.evals.eval import Estimate, Eval, EvalConfig, EvalResult, ItemTable, some
from diptych.evals.fact_metrics import SceneFacts
from diptych.evals.items import item_table
from diptych.evals.scene_facts import is_scene
from diptych.evals.scoring import blank_images, choose_places, describe_broken, distinct, paired_values, thumbnail
from diptych.evals.statistics import mean_estimate, paired_difference, share_estimate
from diptych.evals.written import Written, dealt_out
from diptych.models.capabilities import require
from diptych.models.pretrained import Pretrained

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

    quick: ClassVar[Mapping[str, Any] | None] = {"max_items": 300}

    def unsuited(self, model: Pretrained, data: Any) -> str:
        """Also where records have no captions of one image."""
        captioned = sum(bool(_captions(data, p)) for p in some(data))
        return super().unsuited(model, data) or ("" if captioned > 1 else "its records have no captions")

    def build(self) -> "Captioning":
        """The eval."""
        return Captioning(self)


class Captioning(Eval):
    """CIDEr-D, BLEU-4 and exact matches of the captions that a model writes, with intervals over images.

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
        places = choose_places(data, config.max_items)
        reader = ImageReader(data, model.model.config.image_format, config.batch_size)
        references = {p: texts for p in places if (texts := _captions(data, p))}
        written = self._write(model, reader, references)
        deals = dealt_out(written.clusters, DEALS, config.seed)
        scores = CaptionScores(written, deals, config)
        metrics = scores.metrics()
        meta = [data.meta(p) for p in written.places]
        facts = SceneFacts(meta, written, deals, config.bootstrap, config.seed) if all(map(is_scene, meta)) else None
        if facts is not None:
            metrics |= facts.metrics()
        settings = {
            **{k: v for k, v in to_dict(config).items() if k != "kind"},
            "images": len(written.places),
            "images_without_caption": len(places) - len(references),
            "broken_images": describe_broken(reader),
            **_variety(written),
        }
        tables: dict[str, Any] = {}
        items: dict[str, ItemTable] = {}
        if artifacts:
            values = scores.values() | ({} if facts is None else facts.values())
            items = {"images": item_table(map(data.uid, written.places), values, written.clusters)}
            tables = scores.tables(data) | ({} if facts is None else facts.tables())
        return EvalResult(
            task="captioning",
            data=config.data,
            split=str(data.name),
            metrics=metrics,
            settings=settings,
            items=items,
            artifacts=tables,
            fingerprint=model.fingerprint,
        )

    def _write(self, model: Pretrained, reader: ImageReader, references: dict[int, tuple[str, ...]]) -> Written:
        config = self.config
        how = {"beams": config.beams, "max_tokens": config.max_tokens}
        kept: list[int] = []
        hashes: list[bytes] = []
        captions: list[str] = []
        for batch in reader.batches(list(references)):
            kept += batch.places
            hashes += batch.hashes
            captions += model.caption(batch.images, config.prompt, **how)
        clusters = distinct(hashes)
        if len(np.unique(clusters)) < 2:
            raise EvalError(
                f"captioning must be given at least 2 different readable images with captions; got "
                f"{len(np.unique(clusters))}, {len(references)} with captions and {len(reader.broken)} broken. "
                "Choose a larger split, or one whose records have captions (questions and answers: use vqa)."
            )
        blank = model.caption(blank_images(reader.format, 1), config.prompt, **how)[0] if config.blind else None
        return Written(kept, [references[p] for p in kept], captions, clusters, blank)


class CaptionScores:
    """What the captions of a split are worth beside its references."""

    def __init__(self, written: Written, deals: list[Int64[np.ndarray, " n"]], config: CaptioningConfig) -> None:
        self.written, self.config = written, config
        said, references = written.captions, written.references
        self.scorer = Cider(references)
        self.cider = self.scorer.scores(said)
        self.counts = bleu_counts(said, references)
        self.exact = self._exact(said)
        dealt = [[said[i] for i in deal.tolist()] for deal in deals]
        self.chance = {
            "cider": float(np.mean([self.scorer.scores(d) for d in dealt])),
            "bleu_4": float(np.mean([bleu_of(bleu_counts(d, references).sum(0, keepdims=True)) for d in dealt])),
            "exact_match": float(np.mean([self._exact(d) for d in dealt])),
        }

    def metrics(self) -> dict[str, Estimate]:
        """Each score with its interval and what chance reaches."""
        how = {"samples": self.config.bootstrap, "seed": self.config.seed}
        clusters, chance = self.written.clusters, self.chance
        metrics = {
            "cider": _scaled(mean_estimate(self.cider / SCALE, clusters, chance["cider"] / SCALE, **how)),
            "bleu_4": bleu_estimate(self.counts, clusters, chance["bleu_4"], **how),
            "exact_match": share_estimate(self.exact, clusters, chance["exact_match"], **how),
        }
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
        values = {"cider": self.cider, "exact_match": self.exact}
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


def _captions(split: Any, place: int) -> tuple[str, ...]:
    """The distinct captions of a record; () of one that is no pair: questions with answers, pages, lone images."""
    texts, images = split.pieces(place)
    if len(texts) != 1 or len(images) != 1 or texts[0].role in ("question", "answer"):
        return ()
    return tuple(dict.fromkeys(t for t in texts[0].texts if t.strip()))


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
