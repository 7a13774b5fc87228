import pytest
import torch

from diptych.core.config import from_json, to_json
from diptych.core.image_format import ImageFormat
from diptych.models.capabilities import capabilities_of
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.models.word_predictor import WordPredictorConfig
from tests.models.writers import stirred, text_batch


def small_word_predictor(**changes) -> WordPredictorConfig:
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=8),
    }
    return WordPredictorConfig(**plain | changes)


def test_a_bag_holds_each_word_once_and_no_special():
    model = stirred(small_word_predictor())
    tokens = torch.tensor([[2, 7, 9, 7, 1], [2, 4, 1, 0, 0], [2, 1, 0, 0, 0]])
    bags = model.bags(tokens, torch.tensor([5, 3, 2]))
    assert [row.nonzero()[:, 0].tolist() for row in bags] == [[7, 9], [4], []]
    bare = stirred(small_word_predictor(specials=(0, 1)))
    assert bare.bags(tokens[1:2], torch.tensor([3]))[0].nonzero()[:, 0].tolist() == [2, 4]


@pytest.mark.parametrize("words", ["softmax", "sigmoid"])
def test_the_score_is_the_mean_log_probability_of_the_words(words):
    config = small_word_predictor(words=words)
    assert from_json(to_json(config)) == config
    model, batch = stirred(config), text_batch((5, 4, 7))
    found = model.score(batch.images, batch.tokens, batch.lengths)
    logits = model.head(model.image_tower(model.normalise(batch.images)))
    log_p = logits.log_softmax(-1) if words == "softmax" else torch.nn.functional.logsigmoid(logits)
    for j, (row, n) in enumerate(zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)):
        said = sorted(set(row[1 : n - 1]))
        # a product with a matrix of zeros and ones: another order of the sum
        torch.testing.assert_close(found[:, j], log_p[:, said].mean(1), atol=1e-5, rtol=1e-5)
    assert capabilities_of(model) == ("score",)
    assert model.decay_free() <= dict(model.named_parameters()).keys()
