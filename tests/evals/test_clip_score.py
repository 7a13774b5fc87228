import numpy as np
import pytest
import torch
from torchmetrics.functional.multimodal import clip_score as torchmetrics_score

from diptych.core.errors import EvalError
from diptych.evals import clip_score
from diptych.evals.clip_score import judge_captions, judgement_estimates, open_scorer
from diptych.evals.written import Written, dealt_out
from tests import torchvision_on_cpu
from tests.evals import fakes
from tests.evals.fake_writer import writer

torchvision_on_cpu.install()


def _written(split, captions):
    n = len(split)
    return Written(list(range(n)), [split.captions(i) for i in range(n)], captions, np.arange(n), None)


def _cosines(scorer, split, captions, prefix):
    images = scorer.embed_image([split.image_bytes(i) for i in range(len(split))])
    return (images * scorer.embed_text([prefix + c for c in captions])).sum(1).double().numpy()


def test_equals_the_definition_of_either_convention():
    split = fakes.pairs(12, 2)
    captions = [f"thing {(i * 5) % 12} seen" for i in range(12)]
    scorer, written = fakes.model(), _written(split, captions)
    deals = dealt_out(written.clusters, 3, 0)
    hessel = judge_captions(scorer, split, written, deals, "hessel")
    cosine = _cosines(scorer, split, captions, "A photo depicts ")
    assert (cosine < 0).any()
    np.testing.assert_allclose(hessel.clip_score, 2.5 * np.maximum(cosine, 0), rtol=1e-6)
    for i in range(12):
        said = scorer.embed_text([f"A photo depicts {captions[i]}"])
        texts = scorer.embed_text([f"A photo depicts {t}" for t in split.captions(i)])
        told, seen = max(0.0, float((said @ texts.T).max())), hessel.clip_score[i]
        expected = 2 * seen * told / (seen + told) if seen + told else 0.0
        assert hessel.ref_clip_score[i] == pytest.approx(expected, abs=1e-6)
    plain = judge_captions(scorer, split, written, deals, "torchmetrics")
    np.testing.assert_allclose(
        plain.clip_score, 100 * np.maximum(_cosines(scorer, split, captions, ""), 0), rtol=1e-6, atol=1e-9
    )
    wrong = [_cosines(scorer, split, [captions[j] for j in deal.tolist()], "") for deal in deals]
    assert plain.chance["clip_score"] == pytest.approx(np.mean([100 * np.maximum(w, 0) for w in wrong]))


class _Features:
    """A fake in the words of transformers, which torchmetrics speaks."""

    def __init__(self, scorer):
        self.scorer = scorer
        self.config = type("Config", (), {"text_config": type("Text", (), {"max_position_embeddings": 77})})

    def to(self, device):
        return self

    def get_image_features(self, pixels):
        return self.scorer.model.embed_image(pixels)

    def get_text_features(self, ids, mask=None):
        return self.scorer.model.embed_text(ids, mask)


class _Processor:
    def __init__(self, scorer):
        self.scorer = scorer

    def __call__(self, text=None, images=None, return_tensors="pt", padding=True):
        if images is not None:
            return {"pixel_values": torch.stack(list(images))}
        tokens, _ = self.scorer.tokenizer.batch(text)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def test_equals_torchmetrics_where_no_cosine_is_negative():
    """torchmetrics clips the mean of all, not each: a single negative cosine makes it lower than its own formula."""
    split = fakes.pairs(10)
    scorer = fakes.model()
    for captions, equal in (
        ([f"thing {i}" for i in range(10)], True),
        ([f"thing {(i * 3 + 1) % 10}" for i in range(10)], False),
    ):
        pixels = [scorer.pixels(split.image_bytes(i)) for i in range(10)]
        theirs = float(
            torchmetrics_score(pixels, captions, model_name_or_path=lambda: (_Features(scorer), _Processor(scorer)))
        )
        written = _written(split, captions)
        ours = judge_captions(scorer, split, written, dealt_out(written.clusters, 2, 0), "torchmetrics").clip_score
        unclipped = 100 * _cosines(scorer, split, captions, "")
        assert theirs == pytest.approx(max(0.0, unclipped.mean()), rel=1e-5, abs=1e-5)
        assert (ours.mean() == pytest.approx(theirs, rel=1e-5)) == equal
        assert ours.mean() >= theirs - 1e-5


def test_estimates_stand_above_chance_for_true_captions_only():
    split = fakes.pairs(60)
    scorer = fakes.model()
    true = _written(split, [split.captions(i)[0] for i in range(60)])
    wrong = _written(split, [split.captions((i + 7) % 60)[0] for i in range(60)])
    deals = dealt_out(true.clusters, 5, 0)
    for written, above in ((true, True), (wrong, False)):
        judged = judge_captions(scorer, split, written, deals, "hessel")
        found = judgement_estimates(judged, written.clusters, "hessel", 300, 0)
        for name, e in found.items():
            assert e.above_chance == above, name
            assert e.low <= e.value <= e.high
    assert judged.clip_score.max() <= 2.5


def test_a_model_may_not_judge_itself(monkeypatch):
    split = fakes.pairs(4)
    judge, other = fakes.model(), fakes.model(fakes.Mute)
    monkeypatch.setattr(clip_score, "open_model", lambda words, device: {"judge": judge, "mute": other}[words])
    with pytest.raises(EvalError, match=r"scorer must be another model than the one under test; got judge.*CLIP"):
        open_scorer("judge", writer(split))
    judge.fingerprint = other.fingerprint = "another"
    assert open_scorer("judge", writer(split)) is judge
    with pytest.raises(EvalError, match="the scorer of captions must be given a model with embed_image"):
        open_scorer("mute", writer(split))
