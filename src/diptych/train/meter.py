"""How much arithmetic a step is, and how much of what the machine can do that makes."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diptych.core.batch import Batch
from diptych.core.distributed import world_size
from diptych.core.progress import say
from diptych.objectives.objective import Objective
from diptych.train.environment import matrix_tflops

Kind = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]
_COUNTED: dict[Kind, tuple[float, float]] = {}
"""Operations a pair and a token of text, forward and backward, by objective and kind of batch."""


_TEXT_SHAPED = ("tokens", "loss_mask", "word_starts")
"""What has another width in each batch: operations are counted along the tokens."""


class Meter:
    """Counts the operations of batches, and says what share of the machine's own matrix rate they came to (model FLOPs
    utilisation, Chowdhery et al. 2022, appendix B).

    Counted is what the function needs: one forward and one backward pass of the towers, of the real tokens of each
    text. What is computed twice to save memory counts once. `build` makes the objective that is counted, on the meta
    device; `name` says which one it is, so that each kind of batch is counted once a process. A model that cannot run
    there is not counted, which is said.
    """

    def __init__(
        self, build: Callable[[], Objective], name: str, context_length: int, device: torch.device, precision: str
    ) -> None:
        self._build, self._name, self._context_length = build, name, context_length
        self._device, self._precision = device, precision

    def flops(self, batch: Batch) -> float:
        """Operations of the forward and backward passes of a batch, on this rank; 0 where they cannot be counted."""
        if batch.size < 2:
            return 0.0
        shapes = tuple((name, tuple(t.shape[1:])) for name, t in _tensors(batch) if name not in _TEXT_SHAPED)
        kind = (self._name, shapes)
        if kind not in _COUNTED:
            _COUNTED[kind] = self._per_pair_and_token(batch)
        per_pair, per_token = _COUNTED[kind]
        tokens = 0 if batch.tokens is None or batch.lengths is None else int(batch.lengths.sum())
        images = batch.images if batch.patches is None else batch.patches
        return per_pair * (batch.size if images is None else len(images)) + per_token * tokens

    def utilisation(self, flops: float, seconds: float) -> dict[str, float]:
        """ "mfu": the share of all ranks' matrix rate; empty where nothing was counted."""
        if not flops:
            return {}
        rate = matrix_tflops(self._device, self._precision, torch.get_num_threads()) * 1e12 * world_size()
        return {"mfu": flops / seconds / rate}

    def _per_pair_and_token(self, batch: Batch) -> tuple[float, float]:
        """A line through two lengths of text: attention's own share, which grows faster, is a few percent of it."""
        long = self._context_length if batch.tokens is not None else 1
        short = max(1, long // 4)
        try:
            with torch.device("meta"):
                objective = self._build()
            most = count_flops(objective, without_content(batch, 2, long)) / 2
            least = most if long == short else count_flops(objective, without_content(batch, 2, short)) / 2
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:  # of a model that is not ours
            say(f"  note: no MFU is shown, since the model's operations cannot be counted ({error}).")
            return 0.0, 0.0
        slope = (most - least) / max(long - short, 1)
        return most - slope * long, slope


def count_flops(objective: Objective, batch: Batch) -> float:
    """Operations of one forward and one backward pass of a batch without content through an objective's towers."""
    with FlopCounterMode(display=False) as counter:
        encoded = objective.encode(batch) if objective.couples_pairs else {"total": objective(batch).total}
        moving = [v.float().sum() for v in encoded.values() if v.requires_grad]
        if moving:
            torch.stack(moving).sum().backward()
    objective.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def without_content(batch: Batch, pairs: int, length: int) -> Batch:
    """A batch of `pairs` pairs like the given one, texts of `length` tokens, on the meta device; lengths stay here."""

    def like(t: Tensor) -> Tensor:
        return torch.empty(pairs, *t.shape[1:], dtype=t.dtype, device="meta")

    made: dict[str, Any] = {f.name: like(v) for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor)}
    if batch.cached is not None:
        made["cached"] = {k: like(v) for k, v in batch.cached.items()}
    if "tokens" in made:
        made["tokens"] = torch.empty(pairs, length, dtype=made["tokens"].dtype, device="meta")
    if "word_starts" in made:
        made["word_starts"] = torch.empty(pairs, length, dtype=torch.bool, device="meta")
    # by these, on the host, shapes are decided
    on_host = {"lengths": torch.full((pairs,), length), "loss_mask": torch.ones(pairs, length, dtype=torch.bool)}
    on_host |= {"image_record": torch.arange(pairs), "image_position": torch.zeros(pairs, dtype=torch.int64)}
    made |= {name: t for name, t in on_host.items() if name in made}
    return replace(batch, **made)


def _tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    own = [(f.name, v) for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor)]
    return own + sorted((batch.cached or {}).items())
