import numpy as np
import pytest
import torch

from diptych.core.errors import EvalError
from diptych.core.image_format import ImageFormat
from diptych.core.record import Record, Segment
from diptych.data.dataset import Dataset
from diptych.data.image_reader import ImageReader
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from diptych.evals import winoground
from diptych.evals.winoground import WinogroundConfig
from tests.evals import fakes
from tests.evals.contract import Case
from tests.evals.fake_writer import writer
from tests.evals.two_captions import TwoOfEach, clip_benchmark_says
from tests.reference.winoground import winoground_scores


def _run(model, split, artifacts=False, **settings):
    return WinogroundConfig(**settings).build().run(model, split, artifacts)


def test_the_scores_are_the_published_ones():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (400, 2, 2)).astype(float)  # with many ties
    right = winoground.judge(scores)
    found = tuple(right[name].mean() for name in ("text_score", "image_score", "group_score"))
    assert found == winoground_scores(scores.tolist())
    noise = winoground.judge(rng.normal(size=(60_000, 2, 2)))
    for name, chance in winoground.CHANCE.items():
        assert noise[name].mean() == pytest.approx(chance, abs=0.006)


def test_it_agrees_with_clip_benchmark_to_the_last_digit():
    generator = torch.Generator().manual_seed(0)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(80, 2, 8, generator=generator), dim=-1) for _ in range(2)
    )
    texts = torch.nn.functional.normalize(texts + 0.7 * images, dim=-1)
    right = winoground.judge((images @ texts.transpose(1, 2)).double().numpy())
    theirs = clip_benchmark_says(images, texts)
    for ours, name in (("text_score", "text_acc"), ("image_score", "image_acc"), ("group_score", "acc")):
        assert right[ours].astype(np.float32).mean() == np.float32(theirs[name])


def test_a_tie_is_wrong_here_and_right_in_clip_benchmark():
    """Theirs takes the first of equal scores. A model that says the same of everything gets an item's first caption
    right and its second wrong there, so that no item of it is right either; equal scores of the first alone differ."""
    images = torch.eye(4)[:2][None]
    texts = torch.stack([torch.eye(4)[0] + torch.eye(4)[1], torch.eye(4)[1] + torch.eye(4)[2]])[None]
    texts = torch.nn.functional.normalize(texts, dim=-1)
    scores = (images @ texts.transpose(1, 2)).double().numpy()
    assert scores[0, 1, 0] == pytest.approx(scores[0, 1, 1])
    assert winoground.judge(scores)["text_score"][0] == 0
    assert winoground.judge(np.zeros((1, 2, 2)))["pairs_right"][0] == 0.5


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_a_perfect_model_has_all_of_every_tag(kind):
    result = _run(fakes.model(kind), TwoOfEach(30))
    for name in ("text_score", "image_score", "group_score", "pairs_right", "group_score_object", "text_score_both"):
        assert result.metrics[name].value == 1
        assert result.metrics[name].above_chance
    assert result.settings["tags"] == {"Both": 10, "Object": 10, "Relation": 10}
    assert result.metrics["group_score_both"].n == 10


def test_planted_a_model_that_does_not_look_scores_nothing():
    split = TwoOfEach(40)
    words = {t: float(i) for i, t in enumerate(sorted({t[0] for t in split._captions}))}
    scores = np.array([[[words[f"thing {2 * i}"], words[f"thing {2 * i + 1}"]]] * 2 for i in range(40)])
    right = winoground.judge(scores)
    assert right["text_score"].sum() == right["group_score"].sum() == 0
    assert right["pairs_right"].mean() == 0.5  # of texts one of two, of images ties
    blind = _run(fakes.model(fakes.Collapsed), split)
    assert blind.metrics["group_score"].value == 0
    assert blind.metrics["pairs_right"].value == 0.5


def test_broken_images_take_their_item_with_them_and_equal_items_are_one():
    split = TwoOfEach(12)
    split.images[5] = b"broken"
    split.images[8:10] = split.images[10:12]
    result = _run(fakes.model(), split)
    assert (result.settings["items"], result.settings["broken_images"]["count"]) == (11, 1)
    assert result.metrics["group_score"].n == 10
    split.images = [b"broken"] * 24
    with pytest.raises(EvalError, match="at least one readable image"):
        _run(fakes.model(), split)


def test_a_packed_dataset(tmp_path):
    def record(i):
        texts = [Segment("text", (f"thing {n}",), "txt", role="caption") for n in (2 * i, 2 * i + 1)]
        images = [Segment("image", fakes.picture(n), "png", role="image") for n in (2 * i, 2 * i + 1)]
        return Record(f"k{i}", (images[0], texts[0], images[1], texts[1]), {"split": "test", "tag": "Object"})

    config = PackConfig(val=0.0, jobs=1, tokenizer="none", min_side=1)
    pack(FromRecords(lambda: [record(i) for i in range(5)]), tmp_path / "o", config)
    split = Dataset.open(tmp_path / "o").split("test")
    model = fakes.model()
    assert WinogroundConfig().unsuited(model, split) == ""
    result = _run(model, split, True)
    assert (result.metrics["group_score"].value, result.metrics["group_score"].n) == (1, 5)
    assert len(result.items["items"].keys) == 5


def test_what_it_does_not_suit():
    config = WinogroundConfig()
    assert config.unsuited(fakes.model(), fakes.pairs(4)) == "no records of two images and two captions"
    assert config.unsuited(fakes.model(fakes.Mute), TwoOfEach(4)) == "the model scores no pairs"
    with pytest.raises(EvalError, match=r"two images and two captions; got none in the 4 of val. For one image"):
        _run(fakes.model(), fakes.pairs(4))


def test_scores_are_by_image_and_caption():
    split, model = TwoOfEach(3), fakes.model(perfect=False)
    reader = ImageReader(winoground.BothImages(split), ImageFormat(resolution=fakes.SIDE), 2)
    captions = {i: (f"thing {2 * i}", f"thing {2 * i + 1}") for i in range(3)}
    by_vectors = winoground.score(model, reader, captions, winoground.Scoring("embeddings"))
    by_pairs = winoground.score(fakes.model(fakes.Scores, perfect=False), reader, captions, winoground.Scoring("score"))
    np.testing.assert_allclose(by_vectors.scores, by_pairs.scores, atol=1e-6)
    image = model.embed_image(split.images[3])[0]
    text = model.embed_text("thing 2")[0]
    assert by_vectors.scores[1, 1, 0] == pytest.approx(float(image @ text), abs=1e-6)


class _ByTwo(TwoOfEach):
    """As the fake writer counts: a record an image."""

    def __len__(self):
        return len(self.images)

    def captions(self, i):
        return self._captions[i]

    def meta(self, i):
        return {}


def contract_cases():
    def maker(kind):
        def case(perfect, n):
            n = min(n, 100) if kind == "writes" else n
            model = writer(_ByTwo(n), perfect) if kind == "writes" else fakes.model(kind, perfect)
            return Case(model, TwoOfEach(n), {}, n)

        return case

    return {kind.__name__: maker(kind) for kind in (fakes.Embeds, fakes.Scores)}
