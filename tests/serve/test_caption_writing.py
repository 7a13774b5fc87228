import pytest
import torch

from diptych.checkpoints.native import build
from diptych.core.errors import EvalError
from diptych.data.dataset import Dataset
from diptych.models.generate import Generation
from diptych.models.pretrained import Pretrained
from diptych.nn.draws import uniform
from diptych.serve.caption_writing import CaptionWriter, CaptionWriting, pair_scores, write_by_keys
from tests.checkpoints.tiny import clip_config, randomise
from tests.models.small_fusion import small_albef, small_blip
from tests.models.writers import small_prefix_lm, stirred, text_batch
from tests.train.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return Dataset.open(tiny_dataset(tmp_path_factory.mktemp("data"), copies=1))


def pretrained(config, data: Dataset) -> Pretrained:
    words = data.tokenizer()
    model = build(config, words.vocab_size)
    randomise(model)
    return Pretrained(model, words)


def test_what_is_drawn_for_a_row_is_its_keys_alone():
    model, batch = stirred(small_prefix_lm()), text_batch((3, 3, 3, 3))
    keys = torch.tensor([11, 12, 13, 11])
    images = torch.cat([batch.images[:3], batch.images[:1]])

    def write(rows) -> list[list[int]]:
        state = model.begin_images(images[rows])
        model.read(state, torch.full((len(rows), 1), 2))
        return write_by_keys(model, state, keys[rows], 1, 6, 0.9, 1.0)

    together = write([0, 1, 2, 3])
    assert together[0] == together[3]
    assert [write([i])[0] for i in range(4)] == together
    assert len({tuple(t) for t in together}) > 1


def test_draws_follow_the_nucleus():
    """Of three tokens with 0.5, 0.3 and 0.2 the first two have 0.8: at top_p 0.7 they come 5 to 3, the third never."""

    class Fixed:
        def logits(self, last):
            return torch.tensor([0.2, 0.5, 0.3]).log().expand(len(last), -1)

    keys = torch.arange(4000)
    state = type("State", (), {"last": torch.zeros(4000, 1)})()
    found = torch.tensor(write_by_keys(Fixed(), state, keys, 9, 1, 0.7, 1.0))[:, 0]
    assert set(found.tolist()) == {1, 2}
    assert (found == 1).float().mean().item() == pytest.approx(5 / 8, abs=0.03)
    assert uniform(keys, "token 0", 1).mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_nucleus_that_holds_one_token_is_greedy():
    model, batch = stirred(small_blip()), text_batch((3, 3))
    state = model.begin_images(batch.images)
    model.read(state, torch.full((2, 1), 2))
    found = write_by_keys(model, state, torch.tensor([1, 2]), 1, 5, 1e-9, 1.0)
    assert found == model.generate_text(batch.images, None, Generation(max_tokens=5))


@pytest.mark.parametrize("kind", [small_blip, small_albef])
def test_pairs_are_judged_by_the_matching_head(kind, data):
    judge = pretrained(kind(), data)
    images = text_batch((3, 3)).images
    texts, owner = ["a red dot", "blue", "a frame in green"], torch.tensor([1, 0, 1])
    found = pair_scores(judge, images, texts, owner, at_once=2)
    tokens, lengths = judge.tokenizer.batch(texts)
    grid = judge.model.match(images, tokens, lengths)
    torch.testing.assert_close(found, grid[owner, torch.arange(3)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [clip_config(), small_prefix_lm()])
def test_other_models_judge_by_cosine_or_likelihood(config, data):
    judge = pretrained(config, data)
    images = text_batch((3, 3), side=config.image_format.resolution).images
    texts, owner = ["a red dot", "blue", "a frame"], torch.tensor([1, 0, 1])
    tokens, lengths = judge.tokenizer.batch(texts)
    grid = judge.model.score(images, tokens, lengths)
    found = pair_scores(judge, images, texts, owner)
    torch.testing.assert_close(found, grid[owner, torch.arange(3)], atol=1e-4, rtol=1e-4)


def test_captions_of_a_record_are_those_in_any_batch(data):
    writer = pretrained(small_blip(), data)
    places = [("train", i) for i in range(6)]
    how = CaptionWriting(captions=2, prompt="a picture", max_tokens=4)
    asks = CaptionWriter(writer, writer, how)
    together, alone = asks.about(data, places), [asks.about(data, [p])[0] for p in places]
    assert [w.written for w in together] == [w.written for w in alone]
    for mine, other in zip(together, alone, strict=True):
        assert mine.scores == pytest.approx(other.scores, abs=1e-4)
        assert len(mine.originals) == 2
    assert all(t.startswith("a picture") for w in together for t in w.written)
    reseeded = CaptionWriter(writer, None, how.replace(seed=1)).about(data, places)
    assert [w.written for w in reseeded] != [w.written for w in together]


def test_what_cannot_write_is_refused(data):
    clip = pretrained(clip_config(), data)
    with pytest.raises(EvalError, match="captions must be written by a model that writes; got TwoTower"):
        CaptionWriter(clip, None, CaptionWriting())
