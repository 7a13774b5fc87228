"""The gradient of a batch whose pieces are encoded one by one with their graphs kept: what a cache must equal."""

import torch

from diptych.core.batch import Batch
from diptych.objectives.objective import Losses, Objective


def in_pieces(objective: Objective, batch: Batch, size: int) -> Losses:
    """Encode each piece with its graph, join the embeddings, take the loss once, go backward once."""
    rows = [objective.encode(batch.slice(i, min(i + size, batch.size))) for i in range(0, batch.size, size)]
    losses = objective.loss({k: torch.cat([r[k] for r in rows]) for k in rows[0]}, batch)
    losses.total.backward()
    return losses
