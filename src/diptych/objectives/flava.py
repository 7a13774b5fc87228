"""FLAVA's six losses (Singh et al., 2022, arXiv:2112.04482, sections 3.3 and 3.4), over three kinds of records at once.

A record is read as a pair, as an image alone or as a text alone: as what it is, or, a pair, by chances of the config.

- An image alone gives masked image modelling (mim): the codes of its hidden cells, from the image encoder.
- A text alone gives masked language modelling (mlm).
- A pair gives, from the fused states of both sides masked, the same two (mmm_image, mmm_text) and whether they match
  (matching); and the contrast of both sides as they are, over all pairs of all ranks.

Some pairs have another pair's text to be matched with: no match. They are left out of mmm and of the rows of the
contrast; their images and texts stay among the others' candidates, as in the public implementation. Each loss is a mean
over all its terms (cells, tokens, judgements, pairs) of all ranks.

What couples pairs is done in `loss`: the contrast, and the fusion of an image with another pair's text, over states
that `encode` hands out. So cached pieces (`train/accumulate.py`) and ranks change nothing. Which records are read as
what is known to the host before their shapes are: it waits for the device once a step, where sample_keys lie there.
"""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, gather, gather_with_grad, rank, world_size
from diptych.core.errors import ConfigError, DataError
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.nn.packing import host_lengths
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches, places_of
from diptych.nn.token_masking import TokenMaskingConfig, mask_tokens
from diptych.objectives.matching import as_read, chosen_texts, draw_negatives
from diptych.objectives.objective import Losses, Objective, ObjectiveConfig
from diptych.objectives.same_pairs import SamePairs, duplicate_shares
from diptych.objectives.sides import Rows, Sides, share_of_mean, sides_of, spread
from diptych.objectives.token_loss import each_token_loss

FILLED = ("mim", "mlm", "mmm_image", "mmm_text")
"""The losses that fill in."""


class FlavaObjectiveConfig(ObjectiveConfig):
    """Settings of the six losses.

    image_alone, text_alone  the chances with which a pair is read as one side of it alone
    mismatched       the chance with which a pair's image is judged beside another pair's text
    image_masking, text_masking  what is hidden
    mim ... contrast the weights of the losses; the paper's are 1
    label_smoothing  of the contrast's targets, over all candidates
    duplicates       whether pairs that share a caption or an image are left out of each other's candidates ("mask"),
                     and of each other's wrong texts
    """

    image_alone: float = Field(default=0.1, ge=0, le=1)
    text_alone: float = Field(default=0.1, ge=0, le=1)
    mismatched: float = Field(default=0.1, ge=0, le=1)
    image_masking: PatchMaskingConfig = PatchMaskingConfig(rate=75 / 196, shape="block")
    text_masking: TokenMaskingConfig = TokenMaskingConfig()
    mim: float = Field(default=1.0, ge=0)
    mlm: float = Field(default=1.0, ge=0)
    mmm_image: float = Field(default=1.0, ge=0)
    mmm_text: float = Field(default=1.0, ge=0)
    matching: float = Field(default=1.0, ge=0)
    contrast: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    duplicates: Literal["mask", "ignore"] = "mask"

    @model_validator(mode="after")
    def _chances(self) -> "FlavaObjectiveConfig":
        if self.image_alone + self.text_alone > 1:
            raise ValueError(
                f"FlavaObjectiveConfig.image_alone and text_alone must be chances that add up to 1 at most; got "
                f"{self.image_alone} and {self.text_alone}. What is left is the share of pairs."
            )
        return self

    def build(self, model: Model) -> "FlavaObjective":
        """The objective around `model`."""
        return FlavaObjective(self, model)


class FlavaObjective(Objective):
    """The weighted sum of mim, mlm, mmm_image, mmm_text, matching and contrast; one without a term in the batch is 0.

    Needs: `image_states`, `text_states`, `fusion`, `cells_of`, `text_of`, `codes`, `encode_image`, `encode_text`, the
    five heads and `log_logit_scale` of the model (models/flava.py); images and texts of the batch, one of the two at
    least in each record; text_ids and image_ids unless duplicates are ignored.
    Parts: the six losses, and "matched", the share of judgements that are right.
    """

    couples_pairs = True
    takes_alone: ClassVar[bool] = True
    uses: ClassVar[frozenset[str]] = frozenset({"image", "text", "words"})

    def __init__(self, config: FlavaObjectiveConfig, model: Model) -> None:
        needs = ("image_states", "text_states", "fusion", "codes", "matching_head", "log_logit_scale")
        missing = [n for n in needs if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"FlavaObjective must be given a model of two encoders and a fusion; got {type(model).__name__} "
                f"without {', '.join(missing)}. Use models.flava."
            )
        if getattr(model, "codec", None) is None:
            raise ConfigError(
                "FlavaObjective must be given a model with an image codec, whose codes are foreseen; got none. Train "
                "one first (objectives/codec.py): model.codec are its settings, parts.codec=FOLDER# its weights."
            )
        super().__init__(model)
        self.config = config

    def forward(self, batch: Batch) -> Losses:
        """The loss of this rank's records among all ranks'."""
        return self.loss(self.encode(batch), batch)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """A row a record each of: "image" and "text" (b e), unit vectors of pairs; "image_states" (b p i) and
        "text_states" (b context j), of both sides masked, and "lengths"; "pair" and "mismatched", 1 where a record is
        one; "draw" (b 1), by which a wrong text is drawn; of each loss that fills in its sum and, under "<name>_count",
        how many terms that has; "matching", the loss of judging a pair as it is, with its count and "matched".
        Ids of what is compared: "image_id" and "text_id", where the batch has them."""
        sides, keys = sides_of(batch, self.model), self.keys(batch)
        device, b = keys.device, batch.size
        image, text, pair = self._kinds(sides, keys.cpu())
        wrong = pair & (uniform(keys.cpu(), "mismatched", 1)[:, 0] < self.config.mismatched)
        pairs = Rows.of(pair, device)
        found = self._unit_vectors(sides, pairs, b) | sides.ids(batch, device)
        found |= {
            "pair": pair.to(device, torch.float32),
            "mismatched": wrong.to(device, torch.float32),
            "draw": uniform(keys, "wrong text", 1),
        }
        seen = self._masked_images(sides, keys, image | pair)
        read = self._masked_texts(batch, sides, keys, text | pair)
        found |= self._alone(seen, read, image, text, b)
        return found | self._together(seen, read, Rows.of(pair & ~wrong, device), b)

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The weighted sum from what `encode` returned; similarities in float32 in any case."""
        c, b = self.config, len(encoded["text"])
        ids = (encoded.get("text_id"), encoded.get("image_id"))
        same = None if c.duplicates == "ignore" else SamePairs.of_ranks(*ids).others(b)
        pair = gather(encoded["pair"].detach()) > 0  # (g): of all ranks
        parts = {n: encoded[n].sum() * share_of_mean(encoded[f"{n}_count"]) for n in FILLED}
        parts["contrast"] = self._contrast(encoded, same, pair)
        parts["matching"], matched = self._matching(encoded, same, pair)
        total = torch.stack([getattr(c, n) * parts[n].float() for n in parts]).sum()
        count = torch.full((), float(b), device=total.device)
        return Losses(total, count, {k: v.detach().float() for k, v in (parts | {"matched": matched}).items()})

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """The loss of a model that knows nothing, logit scale, mean cosines of true and false pairs of this rank,
        recall inside the rank's pairs, shares of pairs among records and of duplicates. A collective."""
        c, pair = self.config, encoded["pair"] > 0
        with torch.autocast(pair.device.type, enabled=False):
            cosines = encoded["image"].detach().float() @ encoded["text"].detach().float().T
        both, b = pair[:, None] & pair, len(pair)
        own, n = cosines.diagonal()[pair], int(pair.sum())
        best = cosines.masked_fill(~both, -2).argmax(1) == torch.arange(b, device=pair.device)
        everyone = gather(pair)
        numbers: dict[str, Any] = {
            "logit_scale": self._scale(),
            "positive_cosine": own.mean() if n else 0.0,
            "negative_cosine": ((cosines * both).sum() - own.sum()) / max(n * n - n, 1),
            "batch_i2t_recall_at_1": best[pair].float().mean() if n else 0.0,
            "pairs": everyone.float().mean(),
            "duplicate_captions": 0.0,
            "duplicate_images": 0.0,
        }
        if everyone.any():
            numbers |= duplicate_shares(encoded.get("text_id"), encoded.get("image_id"), everyone)
        there = {n: float(all_sum(encoded[f"{n}_count"].sum()) > 0) for n in FILLED}
        codes, words = self._outputs()
        chance = sum(getattr(c, n) * there[n] * math.log(codes if n in ("mim", "mmm_image") else words) for n in FILLED)
        if everyone.any():
            chance += c.contrast * math.log(float(everyone.sum())) + c.matching * _entropy(c.mismatched)
        return {k: float(v) for k, v in numbers.items()} | {"chance_loss": chance}

    def _kinds(self, sides: Sides, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which records are read as an image alone, as a text alone and as a pair, on the host."""
        c, both = self.config, sides.has_image & sides.has_text
        drawn = uniform(keys, "read as", 1)[:, 0]
        alone = both & (drawn < c.image_alone)
        said = both & ~alone & (drawn < c.image_alone + c.text_alone)
        return (sides.has_image & ~both) | alone, (sides.has_text & ~both) | said, both & ~alone & ~said

    def _unit_vectors(self, sides: Sides, pairs: Rows, b: int) -> dict[str, Tensor]:
        """Unit vectors of pairs as they are; zeros for the others."""
        model: Any = self.model
        image = model.encode_image(sides.images[pairs.at])
        text = model.encode_text(*sides.texts(pairs))
        return {n: spread(x * pairs.counts[:, None], pairs.at, b) for n, x in (("image", image), ("text", text))}

    def _masked_images(self, sides: Sides, keys: Tensor, chosen: Tensor) -> "_Side":
        """The masked images of the records that are `chosen`, as the image encoder sees them, and what is hidden."""
        model: Any = self.model
        rows, how = Rows.of(chosen, keys.device), self.config.image_masking
        images = sides.images[rows.at]
        masked = mask_patches(keys[rows.at], model.grid, how)
        states, normed = model.image_states(images, masked)
        places = places_of(masked, how.count(masked.shape[1]))
        codes = model.codes(images).gather(1, places)
        record = torch.arange(len(places), device=keys.device)[:, None].expand_as(places)
        return _Side(rows, states, normed, record.flatten(), places.flatten(), codes.flatten())

    def _masked_texts(self, batch: Batch, sides: Sides, keys: Tensor, chosen: Tensor) -> "_Side":
        """The masked texts of the records that are `chosen`, as the text encoder reads them, and what is hidden."""
        model: Any = self.model
        rows, how = Rows.of(chosen, keys.device), self.config.text_masking
        starts = batch.word_starts
        if how.unit == "word" and starts is None:
            raise DataError(
                "objective.text_masking.unit must be 'token' for batches that do not say where words begin; got "
                "'word'. The loader says it for a tokenizer that knows."
            )
        tokens, lengths = sides.texts(rows)
        starts = None if starts is None else starts[rows.at]
        hidden = mask_tokens(tokens, lengths, keys[rows.at], how, model.mask_id, model.vocab_size, starts)
        states, normed = model.text_states(hidden.tokens, lengths)
        record, places = hidden.masked.nonzero(as_tuple=True)
        return _Side(rows, states, normed, record, places, tokens[record, places], lengths)

    def _alone(self, seen: "_Side", read: "_Side", image: Tensor, text: Tensor, b: int) -> dict[str, Tensor]:
        """mim and mlm of the records that are one side alone."""
        model: Any = self.model
        cells = model.cells_of(seen.normed, fused=False)
        found = self._filled("mim", model.mim_head, cells, seen, image.to(cells.device).float()[seen.rows.at], b)
        weights = text.to(cells.device).float()[read.rows.at]
        return found | self._filled("mlm", model.mlm_head, read.normed, read, weights, b)

    def _together(self, seen: "_Side", read: "_Side", kept: Rows, b: int) -> dict[str, Tensor]:
        """The fused states of pairs with their own texts: mmm_image, mmm_text and matching; and both sides' states, for
        those that are judged beside another's."""
        model: Any = self.model
        image, text = (spread(x.states, x.rows.at, b) for x in (seen, read))
        lengths = torch.zeros(b, dtype=torch.int64)
        lengths[read.rows.host] = host_lengths(_given(read.lengths), text.shape[1])
        fused = model.fusion(image[kept.at], text[kept.at], lengths[kept.host])
        cells, words = model.cells_of(fused, fused=True), model.text_of(fused, text.shape[1])
        found = self._filled("mmm_image", model.image_head, cells, seen.among(kept, b), kept.counts, b)
        found |= self._filled("mmm_text", model.text_head, words, read.among(kept, b), kept.counts, b)
        logits = model.matching_head(fused[:, 0])
        label = torch.ones(len(logits), dtype=torch.int64, device=logits.device)
        judged = F.cross_entropy(logits, label, reduction="none") * kept.counts
        right = (logits.argmax(1) == label).float() * kept.counts
        room = model.config.context_length - text.shape[1]
        return found | {
            "matching": spread(judged, kept.at, b),
            "matched": spread(right, kept.at, b),
            "matching_count": spread(kept.counts, kept.at, b),
            "image_states": image,
            "text_states": F.pad(text, (0, 0, 0, room)),  # equally wide in all pieces and on all ranks
            "lengths": lengths.to(text.device),
        }

    def _filled(
        self, name: str, head: Any, states: Tensor, side: "_Side", weights: Tensor, b: int
    ) -> dict[str, Tensor]:
        """The summed loss of what is hidden in each record, its terms weighed by those of its row."""
        hidden = states.flatten(0, 1).index_select(0, side.row * states.shape[1] + side.place)
        each, _ = each_token_loss(head(hidden), head.decoder.weight, head.decoder.bias, side.target)
        weight = weights[side.row]
        zeros, record = torch.zeros(b, device=states.device), side.rows.at[side.row]
        return {name: zeros.index_add(0, record, each * weight), f"{name}_count": zeros.index_add(0, record, weight)}

    def _contrast(self, encoded: dict[str, Tensor], same: Tensor | None, pair: Tensor) -> Tensor:
        """InfoNCE of the pairs that match, both ways, among all pairs."""
        b = len(encoded["text"])
        rows = encoded["pair"].detach() * (1 - encoded["mismatched"].detach())
        own = rank() * b + torch.arange(b, device=rows.device)
        barred = ~pair.expand(b, -1) if same is None else same | ~pair
        barred = barred.scatter(1, own[:, None], False)
        with torch.autocast(rows.device.type, enabled=False):
            image, text, scale = encoded["image"].float(), encoded["text"].float(), self._scale()
            i2t = scale * image @ gather_with_grad(text).T
            t2i = i2t.T if world_size() == 1 else scale * text @ gather_with_grad(image).T
            each = sum(_find(x, own, barred, self.config.label_smoothing) for x in (i2t, t2i)) / 2
            return (each * rows).sum() * share_of_mean(rows)

    def _matching(self, encoded: dict[str, Tensor], same: Tensor | None, pair: Tensor) -> tuple[Tensor, Tensor]:
        """(the loss, the share that is right) of judging pairs as they are, and images beside other pairs' texts."""
        model: Any = self.model
        image = as_read(encoded["image_states"], model)
        rows = Rows.of(encoded["mismatched"].detach().cpu() > 0, image.device)
        b, everyone = len(image), len(pair)
        barred = (~pair).expand(b, -1) if same is None else same | ~pair
        barred = barred.scatter(1, (rank() * b + torch.arange(b, device=image.device))[:, None], True)[rows.at]
        even = torch.zeros(len(rows.at), everyone, device=image.device)
        other, there = draw_negatives(even, barred, encoded["draw"].detach()[rows.at, 0])
        text, sizes = chosen_texts(encoded["text_states"], encoded["lengths"], other, model)
        logits = model.matching_head(model.fusion(image[rows.at], text, sizes)[:, 0])
        counts = rows.counts * there
        label = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        wrong = (F.cross_entropy(logits, label, reduction="none") * counts).sum()
        share = share_of_mean(torch.cat([encoded["matching_count"].detach(), counts]))
        right = encoded["matched"].detach().sum() + ((logits.argmax(1) == label).float() * counts).sum()
        return (encoded["matching"].sum() + wrong) * share, right * share

    def _outputs(self) -> tuple[int, int]:
        """How many codes and how many tokens there are to choose from."""
        model: Any = self.model
        return model.image_head.decoder.out_features, model.text_head.decoder.out_features

    def _scale(self) -> Float[Tensor, ""]:
        log: Any = self.model.log_logit_scale
        return log.float().exp().reshape(())


class _Side(NamedTuple):
    """One side of some records, masked: their `rows`, its states before and after the last norm; of each hidden cell or
    token the row (among these), its place and what it was."""

    rows: Rows
    states: Tensor
    normed: Tensor
    row: Tensor
    place: Tensor
    target: Tensor
    lengths: Tensor | None = None

    def among(self, kept: Rows, b: int) -> "_Side":
        """What is hidden in the records that are `kept`, rows counted among those."""
        number = torch.full((b,), -1, dtype=torch.int64, device=kept.at.device)
        number[kept.at] = torch.arange(len(kept.at), device=kept.at.device)
        row = number[self.rows.at[self.row]]
        at = (row >= 0).nonzero()[:, 0]
        return self._replace(rows=kept, row=row[at], place=self.place[at], target=self.target[at])


def _find(logits: Tensor, own: Tensor, barred: Tensor, smoothing: float) -> Tensor:
    """Of each row the cross-entropy of finding its partner among all columns that are not barred."""
    log_p = logits.masked_fill(barred, float("-inf")).log_softmax(1)
    even = log_p.masked_fill(barred, 0).sum(1) / (~barred).sum(1)
    return -((1 - smoothing) * log_p.gather(1, own[:, None])[:, 0] + smoothing * even)


def _given(lengths: Tensor | None) -> Tensor:
    assert lengths is not None
    return lengths


def _entropy(chance: float) -> float:
    return -sum(p * math.log(p) for p in (chance, 1 - chance) if p > 0)
