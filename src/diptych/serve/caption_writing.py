"""Captions of a dataset's images, drawn from the nucleus by each record's own number, and what a judge says of them."""

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.core.errors import DataError, EvalError, ShardError
from diptych.core.progress import track
from diptych.core.seeds import fold
from diptych.data.dataset import Dataset
from diptych.data.decode import decode_image, resize_image
from diptych.models.capabilities import require
from diptych.models.generate import nucleus
from diptych.models.pretrained import Pretrained
from diptych.nn.draws import uniform
from diptych.serve.caption_journal import Journal, Written


class CaptionWriting(Config):
    """How captions are written.

    captions     of each image
    prompt       how each begins ("a picture of"), and is kept
    top_p        tokens are drawn from the likeliest ones that have so much probability (Holtzman et al., 2020); 0.9 in
                 CapFilt, which beam search served worse (table 2)
    temperature  logits are divided by it first
    max_tokens   the most that are written; 0: as the context has room
    seed         of the draws, with each record's uid
    batch_size   images at a time: changes nothing but speed
    """

    captions: int = Field(default=1, ge=1)
    prompt: str = ""
    top_p: float = Field(default=0.9, gt=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=0, ge=0)
    seed: int = 0
    batch_size: int = Field(default=64, ge=1)


class _Seen(NamedTuple):
    """A record of one image and at most one text, decoded."""

    row: int
    uid: str
    image: UInt8[Tensor, "3 h w"]
    originals: tuple[str, ...]


class CaptionWriter:
    """A model that writes, and one that judges (None: none): each brings its own tokenizer and pixel format."""

    def __init__(self, writer: Pretrained, judge: Pretrained | None, config: CaptionWriting) -> None:
        if "generate_text" not in writer.capabilities:
            raise EvalError(
                f"captions must be written by a model that writes; got {type(writer.model).__name__} with "
                f"{', '.join(writer.capabilities) or 'none of the capabilities'}. Train one with a recipe that writes, "
                "such as blip:tiny or coca:tiny."
            )
        if judge is not None:
            require(judge.model, ("score",), "a filter of captions")
        self.writer, self.judge, self.config = writer, judge, config
        start, end = writer.tokenizer.specials
        if not start or not end:
            raise EvalError(
                "a tokenizer must have a start and an end to write with. Name their ids where it is loaded."
            )
        self.start = [*start, *(writer.tokenizer.bare([config.prompt])[0] if config.prompt else [])]
        room = max(1, writer.tokenizer.context_length - len(self.start))
        self.most, self.end = min(config.max_tokens or room, room), end[0]

    def fill(self, dataset: Dataset, places: list[tuple[str, int]], journal: Journal) -> None:
        """Write about the records at (split, row) that the journal has not yet, in their order."""
        size = self.config.batch_size
        starts = range(journal.count, len(places), size)
        for start in track(starts, f"captions, batches of {size}", len(starts)):
            journal.add(self.about(dataset, places[start : start + size]))

    @torch.no_grad()
    def about(self, dataset: Dataset, places: list[tuple[str, int]]) -> list[Written]:
        """What there is to say of some records."""
        rows: list[Written] = []
        seen: list[_Seen] = []
        for row, (name, i) in enumerate(places):
            split = dataset.split(name)
            pieces, uid = split.pieces(i), split.uid(i)
            pair = split.images_of(i) == 1 and len(pieces.texts) <= 1 and all(t.role == "caption" for t in pieces.texts)
            rows.append(Written(uid, "" if pair else "not_a_pair"))
            if not pair:
                continue
            try:
                image = decode_image(split.image_bytes(i))
            except ShardError:  # not one record but a file of them: it must be mended
                raise
            except DataError:
                rows[row] = Written(uid, "no_image")
                continue
            seen.append(_Seen(row, uid, image, pieces.texts[0].texts if pieces.texts else ()))
        if seen:
            for one, found in zip(seen, self._judged(seen, self._write(seen)), strict=True):
                rows[one.row] = found
        return rows

    def _pixels(self, model: Pretrained, seen: list[_Seen]) -> UInt8[Tensor, "b 3 h w"]:
        form = model.model.config.image_format
        return torch.stack([resize_image(s.image, form) for s in seen]).to(model.device)

    def _write(self, seen: list[_Seen]) -> list[list[str]]:
        """`captions` texts about each image."""
        c, network = self.config, cast(Any, self.writer.model)
        count = len(seen) * c.captions
        features = network.image_features(self._pixels(self.writer, seen)).repeat_interleave(c.captions, 0)
        tokens = torch.tensor([self.start] * count, device=features.device)
        lengths = torch.full((count,), len(self.start))
        state = network.begin(features, Batch(tokens=tokens, lengths=lengths, image_record=torch.arange(count)))
        keys = torch.tensor([fold(c.seed, "recaption", s.uid, j) for s in seen for j in range(c.captions)])
        ids = write_by_keys(network, state, keys.to(features.device), self.end, self.most, c.top_p, c.temperature)
        said = [f"{c.prompt} {self.writer.tokenizer.decode(row).strip()}".strip() for row in ids]
        return [said[i : i + c.captions] for i in range(0, count, c.captions)]

    def _judged(self, seen: list[_Seen], written: list[list[str]]) -> list[Written]:
        if self.judge is None:
            return [Written(s.uid, "", texts) for s, texts in zip(seen, written, strict=True)]
        texts = [[*new, *s.originals] for s, new in zip(seen, written, strict=True)]
        owner = torch.tensor([i for i, own in enumerate(texts) for _ in own])
        flat = [t for own in texts for t in own]
        scores = pair_scores(self.judge, self._pixels(self.judge, seen), flat, owner)
        if not scores.isfinite().all():
            raise EvalError(
                f"a filter's scores must be finite; got NaN or infinity near record {seen[0].uid}. Its weights are "
                "broken: take an earlier checkpoint."
            )
        values = scores.tolist()
        found, start = [], 0
        for s, new in zip(seen, written, strict=True):
            middle, stop = start + len(new), start + len(new) + len(s.originals)
            found.append(Written(s.uid, "", new, values[start:middle], values[middle:stop]))
            start = stop
        return found


@torch.no_grad()
def pair_scores(
    judge: Pretrained,
    images: UInt8[Tensor, "i 3 h w"],
    texts: list[str],
    owner: Int64[Tensor, " n"],
    at_once: int = 256,
) -> Float[Tensor, " n"]:
    """How well each text matches the image that `owner` names: the log-odds of a head that judges pairs, where the
    model has one, else cosines, else whatever its `score` is."""
    network = cast(Any, judge.model)
    tokens, lengths = judge.tokenizer.batch(texts)
    device = judge.device
    if hasattr(network, "matching_logits"):
        features, found = network.image_features(images), []
        for part in torch.arange(len(texts)).split(at_once):
            logits = network.matching_logits(features[owner[part].to(device)], tokens[part].to(device), lengths[part])
            found.append(logits[:, 1] - logits[:, 0])
        return torch.cat(found).float().cpu()
    if {"embed_image", "embed_text"} <= set(judge.capabilities):
        image, text = network.embed_image(images), network.embed_text(tokens.to(device), lengths)
        return torch.linalg.vecdot(image[owner.to(device)], text).float().cpu()
    scores = torch.empty(len(texts))
    for i in range(len(images)):
        own = owner == i
        if own.any():
            scores[own] = network.score(images[i : i + 1], tokens[own].to(device), lengths[own])[0].float().cpu()
    return scores


@torch.no_grad()
def write_by_keys(
    model: Any, state: Any, keys: Int64[Tensor, " b"], end_id: int, most: int, top_p: float, temperature: float
) -> list[list[int]]:
    """What `model` writes after what `state` has read: each row's tokens are drawn from the nucleus by its own key, so
    that the rows around it change nothing."""
    written: list[list[int]] = [[] for _ in range(len(keys))]
    open_rows = torch.arange(len(keys))
    for step in range(most):
        upto = nucleus(model.logits(state.last).float() / temperature, top_p).double().cumsum(1)
        draw = uniform(keys, f"token {step}", 1).double() * upto[:, -1:]
        chosen = torch.searchsorted(upto, draw, right=True)[:, 0].clamp(max=upto.shape[1] - 1)
        said = chosen.tolist()
        goes_on = [i for i, token in enumerate(said) if token != end_id]
        for i in goes_on:
            written[int(open_rows[i])].append(said[i])
        if not goes_on or step + 1 == most:
            break
        if len(goes_on) < len(said):  # rows that have ended cost nothing more
            kept = torch.tensor(goes_on)
            on = kept.to(keys.device)
            open_rows, state, keys, chosen = open_rows[kept], state.select(on), keys[on], chosen[on]
        model.read(state, chosen[:, None])
    return written
