"""FLAVA's six losses by loops over records: one encoder pass a record, whole matrices of logits, plain sums."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.core.batch import Batch
from diptych.models.flava import Flava
from diptych.nn.draws import uniform
from diptych.nn.patch_masking import mask_patches
from diptych.nn.token_masking import mask_tokens


def logits(head: Any, states: Tensor) -> Tensor:
    """All logits of a head."""
    return F.linear(head(states), head.decoder.weight, head.decoder.bias)


def mean(terms: list[Tensor]) -> Tensor:
    """Of no terms: 0."""
    return torch.stack(terms).mean() if terms else torch.zeros(())


def kinds(batch: Batch, image_alone: float, text_alone: float, mismatched: float) -> list[str]:
    """What each record of pairs is read as: "image", "text", "pair" or "wrong"."""
    assert batch.sample_keys is not None
    found = []
    for key in batch.sample_keys:
        u = float(uniform(key[None], "read as", 1))
        if u < image_alone:
            found.append("image")
        elif u < image_alone + text_alone:
            found.append("text")
        else:
            found.append("wrong" if float(uniform(key[None], "mismatched", 1)) < mismatched else "pair")
    return found


def wrong_partner(number: int, pairs: list[int], barred: list[list[bool]], batch: Batch) -> int | None:
    """Whose text stands beside the image of pair `number`: each other's that is not barred is as likely."""
    assert batch.sample_keys is not None
    others = [j for j in pairs if j != number and not barred[number][j]]
    draw = float(uniform(batch.sample_keys[number][None], "wrong text", 1))
    return others[int(draw * len(others))] if others else None


def losses(model: Flava, batch: Batch, config: Any) -> dict[str, Tensor]:
    """The six losses by name."""
    assert batch.images is not None
    assert batch.tokens is not None
    assert batch.lengths is not None
    assert batch.sample_keys is not None
    assert batch.text_ids is not None
    assert batch.image_ids is not None
    b = batch.size
    what = kinds(batch, config.image_alone, config.text_alone, config.mismatched)
    pairs = [i for i in range(b) if what[i] in ("pair", "wrong")]
    same = [
        [bool(batch.text_ids[i] == batch.text_ids[j] or batch.image_ids[i] == batch.image_ids[j]) for j in range(b)]
        for i in range(b)
    ]
    terms: dict[str, list[Tensor]] = {n: [] for n in ("mim", "mlm", "mmm_image", "mmm_text", "matching")}
    images, texts = [], []
    for i in range(b):
        one, key = slice(i, i + 1), batch.sample_keys[i : i + 1]
        picture = batch.images[one]
        n = int(batch.lengths[i])
        words = batch.tokens[one, :n]
        width = batch.tokens.shape[1]  # as many numbers are drawn for each text as the widest has tokens
        cells = mask_patches(key, model.grid, config.image_masking)
        hidden = mask_tokens(
            batch.tokens[one, :width], batch.lengths[one], key, config.text_masking, model.mask_id, model.vocab_size
        )
        codes = model.codes(picture)
        image, image_normed = model.image_states(picture, cells)
        text, text_normed = model.text_states(hidden.tokens[:, :n], batch.lengths[one])
        masked = hidden.masked[0, :n]
        images.append(image)
        texts.append(text)
        if what[i] == "image":
            found = logits(model.mim_head, image_normed[0, model.prefix :])
            terms["mim"] += list(F.cross_entropy(found[cells[0]], codes[cells], reduction="none"))
        if what[i] == "text":
            found = logits(model.mlm_head, text_normed[0])
            terms["mlm"] += list(F.cross_entropy(found[masked], words[0, masked], reduction="none"))
        if what[i] == "pair":
            fused = model.fusion(image, text, batch.lengths[one])[0]
            p = image.shape[1]
            found = logits(model.image_head, fused[1 + model.prefix : 1 + p])
            terms["mmm_image"] += list(F.cross_entropy(found[cells[0]], codes[cells], reduction="none"))
            found = logits(model.text_head, fused[1 + p :])
            terms["mmm_text"] += list(F.cross_entropy(found[masked], words[0, masked], reduction="none"))
            terms["matching"].append(F.cross_entropy(model.matching_head(fused[:1]), torch.tensor([1])))
    for i in pairs:
        if what[i] == "wrong":
            other = wrong_partner(i, pairs, same, batch)
            if other is not None:
                fused = model.fusion(images[i], texts[other], batch.lengths[other : other + 1])
                terms["matching"].append(F.cross_entropy(model.matching_head(fused[:, 0]), torch.tensor([0])))
    return {n: mean(t) for n, t in terms.items()} | {"contrast": contrast(model, batch, what, pairs, same)}


def contrast(model: Flava, batch: Batch, what: list[str], pairs: list[int], same: list[list[bool]]) -> Tensor:
    """Both ways, of pairs that match, among all pairs but duplicates."""
    assert batch.images is not None
    assert batch.tokens is not None
    assert batch.lengths is not None
    image = [model.encode_image(batch.images[i : i + 1])[0] for i in range(batch.size)]
    text = [
        model.encode_text(batch.tokens[i : i + 1, : int(batch.lengths[i])], batch.lengths[i : i + 1])[0]
        for i in range(batch.size)
    ]
    scale, terms = model.log_logit_scale.exp(), []
    for i in pairs:
        if what[i] == "pair":
            among = [j for j in pairs if j == i or not same[i][j]]
            i2t = torch.stack([scale * image[i] @ text[j] for j in among])
            t2i = torch.stack([scale * text[i] @ image[j] for j in among])
            own = torch.tensor([among.index(i)])
            terms.append((F.cross_entropy(i2t[None], own) + F.cross_entropy(t2i[None], own)) / 2)
    return mean(terms)
