"""Writing a text token by token: greedy, by beams, or drawn from the nucleus; functions of a model and its state."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from diptych.core.config import Config


class Generation(Config):
    """How a text is written.

    start_id, end_id   the tokens before and behind a text; the end is not returned
    max_tokens         the most tokens that are written
    beams              1: always the likeliest token; more: so many texts are followed at once (Sutskever et al., 2014)
    length_penalty     beams are compared by log p / length ** length_penalty; 0: by log p
    top_p              below 1: drawn from the likeliest tokens that have so much probability (Holtzman et al., 2020)
    temperature        logits are divided by it before drawing; drawing needs top_p < 1 or temperature != 1
    seed               of the draws
    """

    start_id: int = Field(default=2, ge=0)
    end_id: int = Field(default=1, ge=0)
    max_tokens: int = Field(default=32, ge=1)
    beams: int = Field(default=1, ge=1)
    length_penalty: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_way(self) -> "Generation":
        if self.beams > 1 and self.draws:
            raise ValueError(
                f"Generation.beams must be 1 where tokens are drawn; got {self.beams} beams with top_p {self.top_p} "
                f"and temperature {self.temperature}. Choose one of them."
            )
        return self

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.top_p < 1 or self.temperature != 1


@torch.no_grad()
def write(model: Any, state: Any, how: Generation) -> list[list[int]]:
    """What `model` (a Writer) writes after what `state` has read, for each of its rows; the end is left out."""
    if how.beams > 1:
        return _beams(model, state, how)
    generator = torch.Generator().manual_seed(how.seed)
    rows = len(state.position)
    written: list[list[int]] = [[] for _ in range(rows)]
    open_rows = torch.arange(rows)
    for _ in range(how.max_tokens):
        logits = model.logits(state.last).float()
        chosen = _drawn(logits, how, generator) if how.draws else logits.argmax(-1)
        said = chosen.tolist()
        goes_on = [i for i, token in enumerate(said) if token != how.end_id]
        for i in goes_on:
            written[int(open_rows[i])].append(said[i])
        if not goes_on:
            break
        if len(goes_on) < len(said):  # rows that have ended cost nothing more
            kept = torch.tensor(goes_on)
            open_rows, state = open_rows[kept], state.select(kept.to(chosen.device))
            chosen = chosen[kept.to(chosen.device)]
        model.read(state, chosen[:, None])
    return written


def nucleus(logits: Float[Tensor, "b v"], top_p: float) -> Float[Tensor, "b v"]:
    """Probabilities of the smallest set of likeliest tokens that holds at least `top_p` of all, summing to 1."""
    ordered, order = logits.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, 0)
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _drawn(logits: Tensor, how: Generation, generator: torch.Generator) -> Int64[Tensor, " b"]:
    probabilities = nucleus(logits / how.temperature, how.top_p)
    return torch.multinomial(probabilities.cpu(), 1, generator=generator)[:, 0].to(logits.device)


def _beams(model: Any, state: Any, how: Generation) -> list[list[int]]:
    """Beam search: of each row's open beams and finished texts, the best `beams` by log p over length penalty."""
    rows, k, device = len(state.position), how.beams, state.position.device
    texts: list[list[list[int]]] = [[[]] for _ in range(rows)]
    scores = torch.zeros(rows, 1, device=device)
    done: list[list[tuple[float, list[int]]]] = [[] for _ in range(rows)]
    for step in range(1, how.max_tokens + 1):
        log_p = model.logits(state.last).float().log_softmax(-1).view(rows, -1, model.vocab_size)
        total = scores[:, :, None] + log_p  # (rows, open beams, v)
        width = total.shape[1]
        best, index = total.flatten(1).topk(min(2 * k, total[0].numel()))  # the end can take at most k of them
        origin, chosen, kept = [], [], []
        for row in range(rows):
            alive: list[tuple[float, int, int]] = []
            for score, place in zip(best[row].tolist(), index[row].tolist(), strict=True):
                beam, token = divmod(place, model.vocab_size)
                if token == how.end_id:
                    done[row].append((score / step**how.length_penalty, texts[row][beam]))
                elif len(alive) < k:
                    alive.append((score, beam, token))
            texts[row] = [[*texts[row][beam], token] for _, beam, token in alive]
            kept.append([score for score, _, _ in alive])
            origin += [row * width + beam for _, beam, _ in alive]
            chosen += [token for _, _, token in alive]
        scores = torch.tensor(kept, device=device)
        if step == how.max_tokens or all(_settled(done[r], kept[r], step, how) for r in range(rows)):
            break
        state = state.select(torch.tensor(origin, device=device))
        model.read(state, torch.tensor(chosen, device=device)[:, None])
    for row in range(rows):
        ended = scores[row].tolist()
        done[row] += [(s / step**how.length_penalty, t) for s, t in zip(ended, texts[row], strict=True)]
    return [max(found, key=lambda x: x[0])[1] for found in done]


def _settled(done: list[tuple[float, list[int]]], alive: list[float], step: int, how: Generation) -> bool:
    """Whether no open beam can still beat the best `beams` texts, since log p only falls."""
    if len(done) < how.beams:
        return False
    worst = sorted((score for score, _ in done), reverse=True)[how.beams - 1]
    longest = how.max_tokens if how.length_penalty > 0 else step
    return max(alive) / longest**how.length_penalty <= worst
