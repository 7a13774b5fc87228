"""Masked data modelling: one loss for images, texts and pairs (BEiT-3, arXiv:2208.10442, section 2.2).

An image is hidden block by block and its patches are foreseen as codes of an image tokenizer, a text's tokens as
themselves; of a pair, both at once, each from what is left of it and of the other. The paper's batch is equal parts of
images, texts and pairs. Here each record becomes one of the three, as its key decides; a record that lacks one side
is what it has.

The loss of a record is the mean over its hidden patches plus the mean over its hidden tokens, and the loss of a batch
the mean over its records: one count, so that neither pieces nor ranks change it, whatever is hidden where.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches, places_of
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.token_loss import token_loss

IMAGE, TEXT, PAIR = range(3)
"""What a record may become: an image alone, a text alone, both."""


class MaskedDataConfig(ObjectiveConfig):
    """Settings of masked data modelling; rates and weights are the paper's.

    kinds                  how often a pair becomes an image alone, a text alone and stays a pair, in proportion
    text, paired_text      how tokens are hidden; start and end never are
    image, paired_image    how patches are hidden
    code_weight            of patches' losses against tokens'
    label_smoothing        share of each target spread evenly over codes or vocabulary
    """

    kinds: tuple[float, float, float] = (1.0, 1.0, 1.0)
    text: TokenMaskingConfig = TokenMaskingConfig(rate=0.15)
    paired_text: TokenMaskingConfig = TokenMaskingConfig(rate=0.5)
    image: PatchMaskingConfig = PatchMaskingConfig(rate=0.4, shape="block")
    paired_image: PatchMaskingConfig = PatchMaskingConfig(rate=0.4, shape="block")
    code_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _proportions(self) -> "MaskedDataConfig":
        if min(self.kinds) < 0 or not sum(self.kinds) > 0:
            raise ValueError(
                f"MaskedDataConfig.kinds must be three proportions (images, texts, pairs), none negative and not all "
                f"zero; got {self.kinds}. The paper has (1, 1, 1)."
            )
        return self

    def build(self, model: Model) -> "MaskedData":
        """The objective around `model`."""
        return MaskedData(self, model)


class Kinds(NamedTuple):
    """Which records, by their number, become what. On the host."""

    image: Int64[Tensor, " i"]
    text: Int64[Tensor, " t"]
    pair: Int64[Tensor, " p"]


class Asked(NamedTuple):
    """What is to be foreseen of each of some rows.

    places   where, k in each row
    targets  the codes or ids that were there
    share    what each counts: 1 / (how many are hidden in its row), or 0 where fewer than k are
    """

    places: Int64[Tensor, "b k"]
    targets: Int64[Tensor, "b k"]
    share: Float[Tensor, "b k"]


class MaskedData(Objective):
    """The mean over records of what their hidden patches and tokens cost, in nats.

    Needs: `embed_pixels`, `text_embed`, `through`, `codes` and `heads` of the model (models/beit3.py), and its codec.
    What only a dual encoder has (projections, temperature) is kept and not trained. Parts: "mim" and "mlm", the means
    over images and over texts alone, "mim_paired" and "mlm_paired", those over pairs; the shares that were foreseen of
    hidden patches, "codes_right", and tokens, "tokens_right". (In pieces, parts are weighted by all records of a piece,
    which for a log is close enough; the loss is exact.)
    """

    uses: frozenset[str]

    def __init__(self, config: MaskedDataConfig, model: Model) -> None:
        needs = ("embed_pixels", "text_embed", "through", "codes", "heads")
        missing = [n for n in needs if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"MaskedData must be given a multiway model with a codec; got {type(model).__name__} without "
                f"{', '.join(missing)}. Use models.beit3."
            )
        super().__init__(model)
        beit: Any = model
        beit.heads()  # a model without a codec is told so now
        self.config = config
        words = {"words"} if "word" in (config.text.unit, config.paired_text.unit) else set()
        self.uses = frozenset({"image", "text"} | words)
        for part in (beit.image_projection, beit.text_projection):
            part.requires_grad_(False)  # they cannot get a gradient, and DDP would wait for it for ever
        beit.log_logit_scale.requires_grad_(False)

    def forward(self, batch: Batch) -> Losses:
        """All three passes are made whatever the batch holds, with no rows at worst: on every rank every parameter
        takes part."""
        keys = self.keys(batch)
        kinds = self.kinds(batch, keys)
        model: Any = self.model
        x_image, codes = self._images(batch, kinds, keys)
        x_text, lengths, tokens = self._texts(batch, kinds, keys)
        i, t = len(kinds.image), len(kinds.text)
        image = model.through(x_image[:i], None).image
        text = model.through(None, x_text[:t], lengths[:t]).text
        pair = model.through(x_image[i:], x_text[t:], lengths[t:])
        code_head, token_head = model.heads()
        patches = torch.cat([image, pair.image])[:, 1:]  # CLS is no patch
        by_codes, parts = self._foresee(patches, codes, code_head, i, ("mim", "codes_right"))
        by_tokens, more = self._foresee(torch.cat([text, pair.text]), tokens, token_head, t, ("mlm", "tokens_right"))
        count = float(i + t + len(kinds.pair))
        total = (self.config.code_weight * by_codes + by_tokens) / max(count, 1.0)
        return Losses(total, torch.full((), count, device=total.device), parts | more)

    def kinds(self, batch: Batch, keys: Int64[Tensor, " b"]) -> Kinds:
        """What each record becomes. Keys are read back from the device, once a step: they decide how many rows there
        are of each kind. Records without an image or of no more than start and end are what is left of them."""
        has_image, has_text = image_of_each(batch) >= 0, torch.zeros(batch.size, dtype=torch.bool)
        if batch.tokens is not None and batch.lengths is not None:
            has_text = batch.lengths.cpu() > 2
        upto = torch.tensor(self.config.kinds, dtype=torch.float64).cumsum(0)
        draw = uniform(keys.cpu(), "kind of data", 1)[:, 0] * upto[-1]
        drawn = torch.where(draw < upto[0], IMAGE, torch.where(draw < upto[1], TEXT, PAIR))
        kind = torch.where(has_image & has_text, drawn, torch.where(has_image, IMAGE, torch.where(has_text, TEXT, -1)))
        return Kinds(*((kind == k).nonzero()[:, 0] for k in (IMAGE, TEXT, PAIR)))

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """The loss of a model for which all codes and all tokens are alike, on pairs."""
        model: Any = self.model
        image, text, pair = (k / sum(self.config.kinds) for k in self.config.kinds)
        codes = self.config.code_weight * math.log(model.codec.codebook_size)
        return {"chance_loss": (image + pair) * codes + (text + pair) * math.log(model.vocab_size)}

    def _images(self, batch: Batch, kinds: Kinds, keys: Tensor) -> tuple[Tensor, Asked]:
        """Embeddings of the images alone, then of pairs' images, some patches hidden; and what is to be foreseen."""
        model: Any = self.model
        c, grid, records = self.config, model.fill_grid(), torch.cat([kinds.image, kinds.pair])
        own = [keys[k.to(keys.device)] for k in (kinds.image, kinds.pair)]
        masked = torch.cat(
            [mask_patches(k, grid, m) for k, m in zip(own, (c.image, c.paired_image), strict=True)]
        )  # (b, n)
        size, n = model.config.image_format.resolution, grid[0] * grid[1]
        images = batch.images
        if images is None:
            images = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=keys.device)
        if not len(records):  # a batch norm cannot do with fewer than two
            none = torch.zeros(2, n, dtype=torch.bool, device=keys.device)
            x, codes = model.embed_pixels(images[torch.arange(2) % len(images)], none)[:0], masked.long()
        else:
            images = images[image_of_each(batch)[records].to(images.device)]
            x, codes = model.embed_pixels(images, masked), model.codes(images)
        return x, asked(masked, codes, max(c.image.count(n), c.paired_image.count(n)))

    def _texts(self, batch: Batch, kinds: Kinds, keys: Tensor) -> tuple[Tensor, Tensor, Asked]:
        """Embeddings of the texts alone, then of pairs' texts, some tokens hidden; their lengths, on the host; and what
        is to be foreseen."""
        model: Any = self.model
        c, records = self.config, torch.cat([kinds.text, kinds.pair])
        if batch.tokens is None or batch.lengths is None:
            tokens, lengths = (
                torch.zeros(0, 1, dtype=torch.int64, device=keys.device),
                torch.zeros(0, dtype=torch.int64),
            )
        else:
            tokens, lengths = batch.tokens[records.to(keys.device)], batch.lengths.cpu()[records]
        words = None if batch.word_starts is None else batch.word_starts[records.to(keys.device)]
        longest = max(int(lengths.max()) if len(lengths) else 1, 1)
        tokens, t, corrupted, masked, most = tokens[:, :longest], len(kinds.text), [], [], 1
        for how, rows in ((c.text, slice(0, t)), (c.paired_text, slice(t, None))):
            k, starts = keys[records[rows].to(keys.device)], None if words is None else words[rows, :longest]
            found = mask_tokens(tokens[rows], lengths[rows], k, how, model.mask_id, model.vocab_size, starts)
            corrupted.append(found.tokens)
            masked.append(found.masked)
            most = max(most, how.most(longest))
        x = model.text_embed(torch.cat(corrupted))
        return x, lengths, asked(torch.cat(masked), tokens, most)

    def _foresee(
        self, states: Tensor, what: Asked, head: tuple[Tensor, Tensor], alone: int, names: tuple[str, str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum over rows of their mean loss, and parts for the log; the first `alone` rows are no pairs."""
        places = what.places[..., None].expand(-1, -1, states.shape[-1])
        hidden, targets, share = states.gather(1, places).flatten(0, 1), what.targets.flatten(), what.share.flatten()
        summed, each = token_loss(hidden, *head, targets, self.config.label_smoothing, scale=share)
        rows, right = ((x * share).view_as(what.share).sum(1) for x in (each.nll, each.top))
        loss, accuracy = names
        parts = {loss: _mean(rows[:alone]), f"{loss}_paired": _mean(rows[alone:]), accuracy: _mean(right)}
        return summed, parts


def image_of_each(batch: Batch) -> Int64[Tensor, " b"]:
    """The number of each record's one image, on the host; -1: it has none."""
    found = torch.full((batch.size,), -1, dtype=torch.int64)
    if batch.images is None or not len(batch.images):
        return found
    record = torch.arange(len(batch.images)) if batch.image_record is None else batch.image_record.cpu()
    if len(record) > batch.size or len(record.unique()) < len(record):
        raise DataError(
            f"MaskedData must be given records of one image at most; got {len(record)} images for {batch.size} "
            "records. Use pairs."
        )
    found[record] = torch.arange(len(record))
    return found


def asked(masked: Bool[Tensor, "b s"], truth: Int64[Tensor, "b s"], most: int) -> Asked:
    """What is to be foreseen where at most `most` places of each row are masked: no shape is read back."""
    places = places_of(masked, most)
    real = masked.gather(1, places).float()
    return Asked(places, truth.gather(1, places), real / real.sum(1, keepdim=True).clamp_min(1))


def _mean(x: Tensor) -> Tensor:
    return x.sum().detach() / max(len(x), 1)
