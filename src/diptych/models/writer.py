"""Models that write: what training, scoring and generation ask of them, whatever lies between image and language.

A record is a row of text in which images stand at places (`core/batch.py`). Every writer says from which state each
token is predicted (`predict`), and can read a row bit by bit, remembering keys and values (`begin`, `read`): the same
function, so that likelihoods of many texts and generation cost no token twice.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.generate import Generation, write
from diptych.models.sees_images import SeesImages
from diptych.nn.cache import Cache
from diptych.nn.mask import MaskPlan, causal, padding

LOGITS = 1 << 24
"""Numbers of logits that are held at once where likelihoods of many texts are asked for (64 MB)."""


class NextTokens(NamedTuple):
    """What each target is predicted from, after the last norm; the target's id; which of the b records it is of."""

    hidden: Float[Tensor, "m d"]
    targets: Int64[Tensor, " m"]
    record: Int64[Tensor, " m"]


@dataclass
class State:
    """What has been read of each of b rows.

    reading    keys and values
    position   the place in its record that comes next
    text       text tokens read so far
    context    what cross-attention attends to, if the model has such
    last       the state of the last token read, from which the next is predicted; None: nothing was read
    """

    reading: Cache
    position: Int64[Tensor, " b"]
    text: Int64[Tensor, " b"]
    context: Tensor | None = None
    last: Tensor | None = None

    def select(self, rows: Int64[Tensor, " n"]) -> "State":
        """These rows, in this order, apart from the others: both may go on."""
        reading = self.reading.copy()
        reading.select(rows)
        chosen = {n: None if (t := getattr(self, n)) is None else t[rows] for n in ("context", "last")}
        return State(reading, self.position[rows], self.text[rows], **chosen)


class Writer(SeesImages):
    """A model that writes text about images. `image_tokens`: tokens of an image that the language side reads."""

    image_tokens: int

    @abstractmethod
    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        """From which state each token that bears loss is predicted. `features`: of the batch's images, if known."""

    @abstractmethod
    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> State:
        """Read the prompts: their text, which may be empty, and their images where they stand in it."""

    @abstractmethod
    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """The states of further text tokens, of which `lengths` (on the host; None: all) are real. `state` moves on."""

    @abstractmethod
    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        """Weight and bias of the map from states to logits."""

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """What each state says of the next token."""
        weight, bias = self.head()
        return torch.nn.functional.linear(hidden, weight, bias)

    @torch.no_grad()
    def log_likelihood(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """log p(text | image) of every image and every text: the sum over tokens but the first of each row."""
        return self.likelihoods(self.begin_images(images), tokens, lengths)

    def score(
        self, images: UInt8[Tensor, "i 3 h w"], tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """`log_likelihood`."""
        return self.log_likelihood(images, tokens, lengths)

    @torch.no_grad()
    def text_prior(self, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """log p(text | an image of the mean colour): what the words alone make likely."""
        side = self.config.image_format.resolution
        blank = (255 * self.pixel_mean).expand(1, 3, side, side)
        return self.likelihoods(self.begin_images(blank), tokens, lengths)[0]

    @torch.no_grad()
    def begin_images(self, images: UInt8[Tensor, "i 3 h w"] | Float[Tensor, "i 3 h w"]) -> State:
        """A row an image, which has been read; no text yet."""
        features = self.image_features(images)
        return self.begin(features, empty_prompt(len(images), features.device))

    def read_prompts(self, reading: Cache, prompt: Batch, context: Tensor | None = None) -> State:
        """The state of rows of which images alone were read so far, into `reading`, and then the prompts' text."""
        tokens, lengths = text_of(prompt, type(self).__name__)
        zeros = torch.zeros(len(lengths), dtype=torch.int64, device=tokens.device)
        state = State(reading, zeros, zeros, context)
        if int(lengths.sum()):
            self.read(state, tokens, lengths)
        return state

    @torch.no_grad()
    def likelihoods(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"]
    ) -> Float[Tensor, "i b"]:
        """log p(text | what was read) of each of i rows read and each of b texts that may follow.

        Where some text was read already, a text's first token counts, else not: it is the start. `state` stays.
        """
        lengths, rows = lengths.cpu(), len(state.position)
        tokens = tokens.to(state.position.device)
        follows = bool((state.text > 0).all())
        budget = max(1, LOGITS // (max(1, rows * tokens.shape[1]) * self.vocab_size))
        found = [
            self._likelihoods(state, tokens[i : i + budget], lengths[i : i + budget], follows)
            for i in range(0, len(tokens), budget)
        ]
        return torch.cat(found, dim=1)

    def _likelihoods(self, state: State, tokens: Tensor, lengths: Tensor, follows: bool) -> Tensor:
        rows, texts = len(state.position), len(tokens)
        tokens = tokens[:, : max(int(lengths.max()), 1)]
        said, sizes = tokens.repeat(rows, 1), lengths.repeat(rows)
        of_row = torch.arange(rows, device=tokens.device).repeat_interleave(texts)
        real = torch.arange(said.shape[1]) < sizes[:, None]
        hidden = []
        if follows:
            assert state.last is not None
            hidden.append(state.last[of_row][:, None])
        else:
            said, real = said[:, 1:], real[:, 1:]
        if tokens.shape[1] > 1:  # nothing is predicted from a text's last token: it need not be read
            hidden.append(self.read(state.select(of_row), tokens[:, :-1].repeat(rows, 1), (sizes - 1).clamp(min=0)))
        if not hidden:
            return torch.zeros(rows, texts, device=tokens.device)
        real = real.to(said.device)
        logits = self.logits(torch.cat([h.to(hidden[-1].dtype) for h in hidden], dim=1)[real]).float()
        chosen = logits.log_softmax(-1).gather(1, said[real][:, None])[:, 0]
        summed = torch.zeros(real.shape, device=said.device).masked_scatter(real, chosen).sum(1)
        return summed.view(rows, texts)

    @torch.no_grad()
    def generate_text(
        self, images: UInt8[Tensor, "b 3 h w"], prompts: list[list[int]] | None, how: Generation
    ) -> list[list[int]]:
        """What the model writes about each image after its prompt (None: only the start), without the prompt."""
        state = self.begin_images(images)
        given = prompts if prompts is not None else [[how.start_id]] * len(images)
        if len(given) != len(images) or not all(given):
            raise DataError(
                f"prompts must be one an image, of at least the start; got {len(given)} for {len(images)} images."
            )
        lengths = torch.tensor([len(p) for p in given])
        tokens = torch.zeros(len(given), int(lengths.max()), dtype=torch.int64)
        for row, prompt in zip(tokens, given, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        self.read(state, tokens.to(state.position.device), lengths)
        return write(self, state, how)


def empty_prompt(rows: int, device: torch.device) -> Batch:
    """No text, and an image a row."""
    record = torch.arange(rows)
    tokens = torch.zeros(rows, 0, dtype=torch.int64, device=device)
    return Batch(tokens=tokens, lengths=torch.zeros(rows, dtype=torch.int64), image_record=record)


def text_of(batch: Batch, who: str) -> tuple[Tensor, Tensor]:
    """(tokens, lengths) of a batch. Raises DataError where it has none."""
    if batch.tokens is None or batch.lengths is None:
        raise DataError(f"{who} must be given batches with texts; got one without. Use data with captions or answers.")
    return batch.tokens, batch.lengths


def record_of_images(batch: Batch, features: Any) -> Tensor | None:
    """Which record each of the features' images is of; None without images."""
    if features is None:
        return None
    return torch.arange(len(features)) if batch.image_record is None else batch.image_record


def without_loss_mask(batch: Batch) -> Batch:
    """The batch whose every token but each row's first is a target."""
    return replace(batch, loss_mask=None)


def reading_plan(
    reading: Cache, position: Int64[Tensor, " b"], count: int, lengths: Int64[Tensor, " b"] | None
) -> tuple[MaskPlan | None, Int64[Tensor, "b t"]]:
    """Notes that `count` tokens come next in each row, of which `lengths` are real: what they see, and their places."""
    empty = not reading.length
    positions = position[:, None] + torch.arange(count, device=position.device)
    query, key = reading.add(positions, lengths)
    if empty:  # no real token sees the padding behind it
        return MaskPlan(is_causal=True), positions
    if count == 1 and not reading.ragged:
        return None, positions
    return (causal() & padding()).plan(query, key), positions


def note_read(state: State, hidden: Float[Tensor, "b t d"], lengths: Int64[Tensor, " b"] | None) -> None:
    """Moves `state` behind the tokens whose states are `hidden`; of rows without any the last state stays."""
    device, count = hidden.device, hidden.shape[1]
    sizes = torch.full_like(state.text, count) if lengths is None else lengths.to(device)
    last = hidden[torch.arange(len(sizes), device=device), (sizes - 1).clamp(min=0)]
    if state.last is not None:
        last = torch.where(sizes[:, None] > 0, last, state.last.to(last.dtype))
    state.last = last
    state.position, state.text = state.position + sizes, state.text + sizes
