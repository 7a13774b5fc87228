"""Each modality is masked while the other is intact, and both are contrasted and matched (MaskVLM, Kwon et al., 2023,
arXiv:2208.02131).

Masked modelling does not couple pairs: it is done when a pair is encoded, and each pair brings the sum over what was
hidden of it. Contrast needs every pair's vectors, and matching reads other pairs' states, chosen by their similarity:
its pass through the encoders is part of the loss, over states that `encode` hands out. So cached pieces
(`train/accumulate.py`) and ranks give exactly the gradient of the whole batch.
"""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.distributed import all_sum, gather, world_size
from diptych.core.errors import ConfigError, DataError
from diptych.models.crossing import cells_of
from diptych.models.model import Model
from diptych.nn.draws import uniform
from diptych.nn.patch_masking import PatchMaskingConfig, mask_patches, places_of
from diptych.nn.token_masking import MaskedTokens, TokenMaskingConfig, mask_tokens
from diptych.objectives.contrastive import Contrastive, ContrastiveConfig
from diptych.objectives.exchange import Exchange
from diptych.objectives.matching import CHANCE, chosen_rows, chosen_texts, hard_negatives, matching_loss
from diptych.objectives.objective import Losses, ObjectiveConfig
from diptych.objectives.sides import share_of_mean
from diptych.objectives.tiled_softmax import Duplicates
from diptych.objectives.token_loss import each_token_loss


class MutualMaskingConfig(ObjectiveConfig):
    """Settings of MaskVLM's objective, a weighted sum of four losses.

    mim, mlm, contrast, matching  their weights; all 1 in the paper
    patches, tokens  what is hidden of an image and of a text: 60 % and 30 %
    label_smoothing, duplicates, exchange  of the contrastive one, as in ContrastiveConfig
    """

    mim: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    mlm: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    contrast: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    matching: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    patches: PatchMaskingConfig = PatchMaskingConfig(rate=0.6)
    tokens: TokenMaskingConfig = TokenMaskingConfig(rate=0.3)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    duplicates: Duplicates = "mask"
    exchange: Exchange = "auto"

    def build(self, model: Model) -> "MutualMasking":
        """The objective around `model`."""
        return MutualMasking(self, model)


class Views(NamedTuple):
    """The towers' states of whole images and texts, and of those with something hidden; `whole` lengths on the device.

    places, hidden  the hidden cells of each image; the texts as they were corrupted, and which tokens are foreseen
    """

    pixels: Float[Tensor, "b 3 h w"]
    image: Float[Tensor, "b p c"]
    masked_image: Float[Tensor, "b p c"]
    text: Float[Tensor, "b t w"]
    masked_text: Float[Tensor, "b t w"]
    lengths: Int64[Tensor, " b"]
    places: Int64[Tensor, "b k"]
    hidden: MaskedTokens


class MutualMasking(Contrastive):
    """mim L1 of hidden pixels beside the whole text + mlm cross-entropy of hidden tokens beside the whole image +
    contrast InfoNCE + matching of each pair, each text beside another's image and each image beside another's text.

    Pixels are normalised by the model's format, and their error is a mean over what is hidden. Whole and hidden go
    through a tower side by side, so that a tower with batch norm sees them alike in training and in use; its statistics
    then know a little of what is hidden, in training only.

    Needs: `image_states`, `text_states`, `cross_image`, `cross_text`, `pixels_at`, `written`, `head`,
    `matching_logits` and `log_logit_scale` of the model (models/maskvlm.py); images, tokens, lengths and sample_keys of
    the batch, and text_ids or image_ids unless duplicates are ignored.
    Parts: "mim", "mlm" (nats a hidden token), "contrast", "matching"; the shares that are right of hidden tokens,
    "foreseen", and of pairs judged, "matched".
    """

    takes_patches: ClassVar[bool] = False
    takes_cached: ClassVar[bool] = False

    def __init__(self, config: MutualMaskingConfig, model: Model) -> None:
        needs = ("image_states", "text_states", "cross_image", "cross_text", "pixels_at", "matching_logits")
        missing = [n for n in needs if not hasattr(model, n)]
        if missing:
            raise ConfigError(
                f"MutualMasking must be given a model whose modalities look at each other; got {type(model).__name__} "
                f"without {', '.join(missing)}. Use models.maskvlm."
            )
        pairs = ContrastiveConfig(
            label_smoothing=config.label_smoothing, duplicates=config.duplicates, exchange=config.exchange
        )
        super().__init__(pairs, model)
        self.config = config
        if config.tokens.unit == "word":
            self.uses = frozenset({"image", "text", "words"})

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """A row a pair each of: "image" and "text" (b e), unit vectors; "seen" (b p d) and "read" (b context d), what
        matching reads, with "lengths"; "draw" (b 2), the numbers in 0..1 by which negatives are drawn; "mim", and
        "blank", what the mean colour would have cost; "mlm", "foreseen" and "targets", sums over hidden tokens."""
        model: Any = self.model
        keys = self.keys(batch)
        v = self._views(batch, keys)
        seen, read = model.enter_image(v.image), model.enter_text(v.text)
        short = model.config.context_length - read.shape[1]
        return {
            "image": model.image_unit(v.image),
            "text": model.text_unit(v.text, v.lengths),
            "seen": seen,
            "read": F.pad(read, (0, 0, 0, short)),  # equally wide in all pieces and on all ranks
            "lengths": v.lengths,
            "draw": uniform(keys, "negatives", 2),
            **self._rebuilt(v, read),
            **self._foreseen(v, seen, batch),
        }

    def loss(self, encoded: dict[str, Tensor], batch: Batch) -> Losses:
        """The weighted sum of the four losses from what `encode` returned."""
        c = self.config
        pairs = super().loss(encoded, batch)
        matching, matched = self._matching(encoded, batch)
        share = share_of_mean(encoded["targets"])
        with torch.autocast(pairs.total.device.type, enabled=False):
            mim = encoded["mim"].float().mean()
            mlm = encoded["mlm"].float().sum() * share
            total = c.mim * mim + c.mlm * mlm + c.contrast * pairs.total + c.matching * matching
            foreseen = encoded["foreseen"].detach().sum() * share
        parts = {"mim": mim, "mlm": mlm, "contrast": pairs.total, "matching": matching}
        parts |= {"foreseen": foreseen, "matched": matched}
        return Losses(total.float(), pairs.count, {k: p.detach() for k, p in parts.items()})

    @torch.no_grad()
    def health(self, encoded: dict[str, Tensor], batch: Batch | None = None) -> dict[str, Any]:
        """As `Contrastive.health`; the chance-level loss is that of all four: the mean colour, any token, any pair."""
        c, numbers = self.config, super().health(encoded, batch)
        numbers.pop("chance_terms", None)
        blank = all_sum(encoded["blank"].detach().sum()) / (len(encoded["blank"]) * world_size())
        chance = c.contrast * numbers["chance_loss"] + c.matching * CHANCE + c.mlm * math.log(self.model.vocab_size)
        return numbers | {"chance_loss": chance + c.mim * float(blank)}

    def _views(self, batch: Batch, keys: Tensor) -> Views:
        model: Any = self.model
        images, tokens, lengths = batch.images, batch.tokens, batch.lengths
        if images is None or tokens is None or lengths is None or len(images) != len(tokens):
            raise DataError(
                "MutualMasking must be given one image and one text a record; got a batch without. Use paired data."
            )
        c, b, pixels = self.config, len(images), model.normalise(images)
        side = images.shape[-1] // model.cell
        patches = mask_patches(keys, (side, side), c.patches)
        hidden = mask_tokens(tokens, lengths, keys, c.tokens, model.mask_id, model.vocab_size, batch.word_starts)
        nothing = torch.zeros_like(patches)
        image = model.image_states(torch.cat([pixels, pixels]), torch.cat([nothing, patches]))
        text = model.text_states(torch.cat([tokens, hidden.tokens]), torch.cat([lengths, lengths]))
        return Views(
            pixels=pixels,
            image=image[:b],
            masked_image=image[b:],
            text=text[:b],
            masked_text=text[b:],
            lengths=lengths.to(tokens.device, non_blocking=True),
            places=places_of(patches, c.patches.count(side * side)),
            hidden=hidden,
        )

    def _rebuilt(self, v: Views, read: Tensor) -> dict[str, Tensor]:
        """Hidden pixels from what is left of the image and the whole text."""
        model: Any = self.model
        crossed = model.cross_image(model.enter_image(v.masked_image), read, v.lengths)
        painted = model.pixels_at(crossed, v.places)
        cells = cells_of(v.pixels, model.cell)
        truth = cells.gather(1, v.places[..., None].expand(-1, -1, cells.shape[-1])).float()
        return {"mim": (painted.float() - truth).abs().mean((1, 2)), "blank": truth.abs().mean((1, 2))}

    def _foreseen(self, v: Views, seen: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Hidden tokens from what is left of the text and the whole image."""
        model: Any = self.model
        assert batch.tokens is not None
        crossed = model.cross_text(model.enter_text(v.masked_text), v.lengths, seen)
        masked, most = v.hidden.masked, self.config.tokens.most(batch.tokens.shape[1])
        place = places_of(masked, most)
        weight, bias = model.head()
        hidden = crossed.gather(1, place[..., None].expand(-1, -1, crossed.shape[-1]))
        targets = batch.tokens.gather(1, place)
        each, found = each_token_loss(model.written(hidden.flatten(0, 1)), weight, bias, targets.flatten())
        real = masked.gather(1, place).float()
        return {
            "mlm": (each.view_as(real) * real).sum(1),
            "foreseen": (found.top.view_as(real) * real).sum(1),
            "targets": real.sum(1),
        }

    def _matching(self, encoded: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """(the loss, the share that is right) over each pair, each text with a wrong image, each image with a wrong
        text."""
        model: Any = self.model
        i2t, t2i = self._similarities(encoded)
        same = None if self.duplicates == "ignore" else self.same_pairs(batch).others(len(i2t))
        judged = hard_negatives(i2t, t2i, same, encoded["draw"].detach())
        images = chosen_rows(encoded["seen"], judged.image, model)
        texts = chosen_texts(encoded["read"], encoded["lengths"], judged.text, model)
        return matching_loss(model.matching_logits(images, *texts), judged)

    @torch.no_grad()
    def _similarities(self, encoded: dict[str, Tensor]) -> tuple[Float[Tensor, "b g"], Float[Tensor, "b g"]]:
        """Of this rank's images with all texts, and of its texts with all images, times the scale; no gradient."""
        with torch.autocast(encoded["image"].device.type, enabled=False):
            image, text, scale = encoded["image"].float(), encoded["text"].float(), self.logit_scale()
            return scale * image @ gather(text).T, scale * text @ gather(image).T
