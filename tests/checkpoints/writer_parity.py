"""What the parity tests of models that write compare: logits, loss and gradients of both sides."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diptych.checkpoints.convert import assemble, read
from diptych.core.batch import Batch
from diptych.models.writer import Writer
from diptych.objectives.causal_lm import CausalLMConfig
from tests.checkpoints.tiny import TOLERANCE, tokenizer


def our_writer(path: Any) -> Writer:
    """The model that a transformers folder becomes."""
    found = read("transformers", path)
    model = assemble(found, found.tokenizer or tokenizer(found.config.context_length)).model
    assert isinstance(model, Writer)
    return model.eval()


def check_writer(
    model: Writer, batch: Batch, their_logits: Tensor, their_loss: Tensor, gradients: dict[str, Tensor]
) -> None:
    """`their_logits` (m v): of what each target is predicted from, record by record. `gradients`: our parameter's name
    to their parameter."""
    found = model.predict(batch)
    order = torch.argsort(found.record, stable=True)
    torch.testing.assert_close(model.logits(found.hidden)[order], their_logits, **TOLERANCE)
    loss = CausalLMConfig().build(model)(batch).total
    torch.testing.assert_close(loss, their_loss, **TOLERANCE)
    loss.backward()
    their_loss.backward()
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name, theirs in gradients.items():
        mine, yours = parameters[name].grad, theirs.grad
        assert mine is not None
        assert yours is not None
        assert mine.abs().max() > 1e-6, f"{name} must have a gradient to compare"
        torch.testing.assert_close(mine, yours, rtol=1e-3, atol=1e-5 * float(mine.abs().max()) + 1e-6)


def rows_of(logits: Tensor, places: Callable[[int], list[int]]) -> Tensor:
    """The logits at some places of each row, one row's after the other's."""
    return torch.cat([logits[i, places(i)] for i in range(len(logits))])
