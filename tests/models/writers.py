"""Small writers and batches for the tests of those that write."""

import torch
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.image_format import ImageFormat
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.models.writer import Writer
from tests.models.towers import stir

VOCAB = 30


def small_language(**changes) -> CausalTransformerConfig:
    return CausalTransformerConfig(**{"width": 16, "depth": 2, "heads": 2} | changes)


def small_prefix_lm(**changes) -> PrefixLMConfig:
    plain = {
        "image_format": ImageFormat(resolution=16),
        "context_length": 12,
        "embed_dim": 8,
        "image": VisionTransformerConfig(width=16, depth=1, heads=2, patch_size=8),
        "language": small_language(),
        "max_images": 3,
    }
    return PrefixLMConfig(**plain | changes)


def stirred(config, seed: int = 0) -> Writer:
    torch.manual_seed(seed)
    model = config.build(VOCAB)
    stir(model)
    return model.eval()


def text_batch(lengths=(5, 2, 7), seed: int = 1, side: int = 16) -> Batch:
    """Pairs of an image and a text."""
    g = torch.Generator().manual_seed(seed)
    b, t = len(lengths), max(lengths)
    return Batch(
        images=torch.randint(0, 256, (b, 3, side, side), generator=g, dtype=torch.uint8),
        image_record=torch.arange(b),
        tokens=torch.randint(3, VOCAB, (b, t), generator=g),
        lengths=torch.tensor(lengths),
        image_ids=torch.arange(b),
        text_ids=torch.arange(b),
        sample_ids=torch.arange(b),
        sample_keys=torch.arange(b),
    )


def summed(model: Writer, batch: Batch) -> Tensor:
    """log p of each record's targets, from `predict`."""
    found = model.predict(batch)
    log_p = model.logits(found.hidden).log_softmax(-1).gather(1, found.targets[:, None])[:, 0]
    return torch.zeros(len(batch.tokens)).index_add(0, found.record, log_p)


def greedy_again(model: Writer, image: Tensor, prompt: list[int], end_id: int, most: int) -> list[int]:
    """The likeliest token after the whole row is read anew, each time."""
    said: list[int] = []
    for _ in range(most):
        row = torch.tensor([[*prompt, *said, 0]])
        batch = Batch(
            images=image[None], image_record=torch.tensor([0]), tokens=row, lengths=torch.tensor([row.shape[1]])
        )
        token = int(model.logits(model.predict(batch).hidden[-1]).argmax())
        if token == end_id:
            break
        said.append(token)
    return said
