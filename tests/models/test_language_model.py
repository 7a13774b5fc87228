from dataclasses import replace

import torch

from diptych.core.image_format import ImageFormat
from diptych.models.generate import Generation
from diptych.models.language_model import LanguageModelConfig
from tests.models.writers import small_language, stirred, summed, text_batch

CONFIG = LanguageModelConfig(
    image_format=ImageFormat(resolution=16), context_length=12, language=small_language(tied=False, head_bias=True)
)


def test_it_says_the_same_of_every_image():
    model, batch = stirred(CONFIG), text_batch()
    grid = model.log_likelihood(batch.images, batch.tokens, batch.lengths)
    torch.testing.assert_close(grid, grid[:1].expand(3, -1))
    torch.testing.assert_close(grid[0], model.text_prior(batch.tokens, batch.lengths))
    torch.testing.assert_close(grid[0], summed(model, batch), atol=1e-5, rtol=1e-5)
    how = Generation(start_id=2, end_id=1, max_tokens=4)
    said = model.generate_text(batch.images, None, how)
    assert said[0] == said[1] == said[2]


def test_it_learns_what_is_marked_or_all():
    batch = text_batch((5, 4))
    marked = replace(batch, loss_mask=torch.zeros(2, 5, dtype=torch.bool).index_fill(1, torch.tensor([3]), True))
    config = LanguageModelConfig(context_length=12, language=small_language())
    assert len(stirred(config).predict(marked).targets) == 2
    assert len(stirred(config.replace(learns="all")).predict(marked).targets) == 4 + 3
