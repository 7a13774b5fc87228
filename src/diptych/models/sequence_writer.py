"""Writers whose images' tokens stand among the text's in one sequence: what GIT, Frozen, LLaVA and BLIP-2 share."""

from abc import abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import DataError
from diptych.models.language import Language
from diptych.models.writer import NextTokens, State, Writer, note_read, reading_plan, record_of_images, text_of
from diptych.nn.attention import has_runs_kernel
from diptych.nn.splice import Form, Splice, splice


class SequenceWriter(Writer):
    """Splices images' tokens into the text and lets `language` read the whole. `seen`: what a token sees of it."""

    language: Language
    seen: Literal["causal", "prefix"] = "causal"

    @abstractmethod
    def decay_free(self) -> set[str]: ...

    def predict(self, batch: Batch, features: Float[Tensor, "i p d"] | None = None) -> NextTokens:
        tokens, lengths = text_of(batch, type(self).__name__)
        features = self.features_of(batch) if features is None else features
        s = self._splice(batch, features, lengths, self._form(tokens))
        x = s.take(self.language.embed(tokens), features)
        hidden = self.language(x, s.mask(self.seen), s.layout.positions(), only=s.before)
        return NextTokens(hidden, tokens.flatten().index_select(0, s.targets), s.record)

    def begin(self, features: Float[Tensor, "i p d"] | None, prompt: Batch) -> State:
        tokens, lengths = text_of(prompt, type(self).__name__)
        reading, device = self.language.begin(), tokens.device
        if features is None and not int(lengths.sum()):
            zeros = torch.zeros(len(lengths), dtype=torch.int64, device=device)
            return State(reading, zeros, zeros)
        s = self._splice(prompt, features, lengths, "padded")
        reading.add(s.layout.positions(), s.sizes, s.layout.modalities())
        x = s.take(self.language.embed(tokens), features)
        hidden = self.language(x, s.mask(self.seen), s.layout.positions(), reading)
        return State(reading, s.sizes.to(device), lengths.to(device), None, s.at(hidden, s.last))

    def read(
        self, state: State, tokens: Int64[Tensor, "b t"], lengths: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t d"]:
        plan, positions = reading_plan(state.reading, state.position, tokens.shape[1], lengths)
        hidden = self.language(self.language.embed(tokens, state.text), plan, positions, state.reading)
        note_read(state, hidden, lengths)
        return hidden

    def head(self) -> tuple[Float[Tensor, "v d"], Float[Tensor, " v"] | None]:
        return self.language.head()

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return self.language.logits(hidden)

    def _form(self, tokens: Tensor) -> Form:
        if torch.compiler.is_compiling():
            return "padded"
        mixed = torch.amp.is_autocast_available(tokens.device.type) and torch.is_autocast_enabled(tokens.device.type)
        dtype = torch.get_autocast_dtype(tokens.device.type) if mixed else self.pixel_mean.dtype
        heads = getattr(getattr(self.language, "config", None), "heads", 0)
        runs = heads and has_runs_kernel(tokens.device, dtype, self.language.width // heads)
        return "flat" if runs and self.seen == "causal" else "rows"

    def _splice(self, batch: Batch, features: Tensor | None, lengths: Tensor, form: Form) -> Splice:
        assert batch.tokens is not None
        p = 0 if features is None else features.shape[1]
        where = (record_of_images(batch, features), None if features is None else batch.image_position)
        s = splice(lengths, batch.tokens.shape[1], p, *where, batch.loss_mask, batch.tokens.device, form)
        longest = int(s.sizes.max()) if len(s.sizes) else 0
        if longest > self.language.context_length:
            raise DataError(
                f"a record must have at most {self.language.context_length} tokens, its images' included; got "
                f"{longest}. Truncate with the model's own tokenizer, or give the model fewer images a record."
            )
        return s
