"""The tables of a run: the vectors of its frozen towers, and of a teacher, computed once and read from then on.

The rows are what the tower returns for a record's image (as the format resizes it, or `cached_crops` augmented views
of it) or for each of its captions, so what follows in a step is the same function, value and gradient. They are found
again by a fingerprint of all that decides them: weights, pixels or tokens, data, views, precision.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diptych.checkpoints.adapters import adapter_scale, merged
from diptych.checkpoints.native import build as plain_build
from diptych.checkpoints.native import find_model, fingerprint, load
from diptych.core.config import to_dict
from diptych.core.distributed import broadcast_object, is_main
from diptych.core.errors import ConfigError, DataError, DiptychError, ShardError
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.core.seeds import fold
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.build_features import Chunk, Compute, Rows, feature_table
from diptych.data.captions import text_id
from diptych.data.dataset import Dataset, Split
from diptych.data.features import FeatureTable, TableSpec
from diptych.data.tokenize import Tokenizer
from diptych.data.views import Views
from diptych.data.workers import in_workers, worker_count
from diptych.models.model import Model
from diptych.objectives.objective import Objective
from diptych.train.config import RunConfig
from diptych.train.freeze import frozen_tower
from diptych.train.sharding import is_sharded, whole

VERSION = 1
"""Part of every fingerprint: raised when towers or preprocessing come to compute something else."""
ROWS_AT_ONCE = 64
CHUNK = 256
KINDS: tuple[Literal["image", "text"], ...] = ("image", "text")

Tables = dict[str, dict[str, FeatureTable]]
"""By the name of the split, then by the name in `Batch.cached`."""


def cached_names(config: RunConfig, objective: Objective) -> list[str]:
    """Names in `Batch.cached` that the run's batches bring: "image", "text", "teacher_image", "teacher_text".

    Raises ConfigError where the run asks for what no table can hold.
    """
    t = config.train
    names: list[str] = []
    if t.frozen == "cached":
        writer = hasattr(objective.model, "features_from")  # what it reads of texts is no vector
        kinds = [kind for kind in KINDS if kind in objective.uses and not (writer and kind == "text")]
        names += [kind for kind in kinds if frozen_tower(objective.model, kind)]
        continues = writer or hasattr(objective.model, "encode_from")
        if names and not (objective.takes_cached and continues):
            raise ConfigError(
                f"train.frozen must be live where {type(objective).__name__} needs images and texts themselves; got "
                "cached. Set train.frozen=live."
            )
    if t.cached_crops and "image" not in names:
        raise ConfigError(
            f"train.cached_crops must be 0 where no image tower is frozen and cached; got {t.cached_crops}. Freeze it "
            "(train.freeze=image), or leave the setting out."
        )
    if t.progressive and "image" in names:
        raise ConfigError(
            f"train.progressive must be empty where the image tower is computed once; got {t.progressive}. Leave it "
            "out, or set train.frozen=live."
        )
    if objective.teacher:
        find_model(Path(objective.teacher))
        names += [f"teacher_{kind}" for kind in KINDS]
    return names


def cached_widths(config: RunConfig, objective: Objective) -> dict[str, int]:
    """How wide the vectors of each of `cached_names` are; a teacher's may be of another width, and serve as any."""
    names = cached_names(config, objective)
    return {name: table_width(objective.model, "text" if name.endswith("text") else "image") for name in names}


def table_width(model: Model, kind: Literal["image", "text"]) -> int:
    """How many numbers a row of the model's `image_vectors` or `text_vectors` is: the width of its towers' vectors,
    unless it says itself (`table_width`)."""
    own = getattr(model, "table_width", None)
    return int(own(kind) if own is not None else getattr(model.config, "embed_dim"))  # noqa: B009  # towers have one


def run_tables(
    config: RunConfig, objective: Objective, dataset: Dataset, tokenizer: Tokenizer, device: torch.device
) -> Tables:
    """Every table that the run reads from, for its split and for the validation split; what is missing is computed now.

    A collective: all ranks share the work. The weights must be those of the run (a resumed one's too).
    """
    names = cached_names(config, objective)
    if not names:
        return {}
    train_split, crops = config.data.split, config.train.cached_crops
    splits = [train_split] + (["val"] if "val" in dataset.splits and config.train.val_batches else [])
    if "image" in names and not crops and config.data.augment != NO_AUGMENTATION:
        say(
            "  note: the image tower is computed once, so data.augment does not vary the images. For several views of "
            "each: train.cached_crops=8 (an approximation); for new ones at every step: train.frozen=live."
        )
    own = Source(_unsharded(objective.model), tokenizer, "")
    try:
        teacher = _teacher(objective.teacher, device) if objective.teacher else None
        tables: Tables = {}
        for name in splits:
            tables[name] = {}
            for cached in names:
                source = own if teacher is None or not cached.startswith("teacher_") else teacher
                copies = crops if cached == "image" and name == train_split else 0
                filler = Filler(config, source, dataset.split(name), copies, device)
                spec = filler.spec("text" if cached.endswith("text") else "image", dataset.fingerprint)
                tables[name][cached] = feature_table(spec, filler.split, dataset.path, filler.compute(spec))
    finally:
        objective.train()
    return tables


@dataclass(frozen=True)
class Source:
    """A model whose towers fill tables, with its own tokenizer; `name` is for people."""

    model: Model
    tokenizer: Tokenizer
    name: str


class Filler:
    """Computes the rows of one split. `copies`: augmented views of each image; 0: one, not augmented."""

    def __init__(self, config: RunConfig, source: Source, split: Split, copies: int, device: torch.device) -> None:
        self.config, self.source, self.split, self.copies, self.device = config, source, split, copies, device
        self.model: Any = source.model

    def spec(self, kind: Literal["image", "text"], data: str) -> TableSpec:
        """What the table holds, under the fingerprint of all that decides it; `data` is the dataset's own."""
        t, c, model = self.config.train, self.config.data, self.source.model
        tower: torch.nn.Module = getattr(model, f"{kind}_tower")
        settings: dict[str, Any] = {
            "version": VERSION,
            "kind": kind,
            # what a model of its own kind reads off a tower is decided elsewhere in its settings
            "tower": to_dict(
                model.config if hasattr(model, "table_width") else getattr(model.config, kind, model.config)
            ),
            "data": [data, self.split.name],
            "dtype": t.cached_dtype,
            "precision": t.precision,
            "channels_last": t.channels_last,
        }
        if kind == "text":
            settings |= {"tokenizer": self.source.tokenizer.fingerprint, "context": model.config.context_length}
        else:
            settings |= {"format": to_dict(model.config.image_format), "decode": c.decode, "copies": self.copies}
            settings |= {"augment": to_dict(c.augment), "seed": t.seed} if self.copies else {}
        state = {**dict(tower.named_buffers()), **tower.state_dict()}
        found = fingerprint(state, json.dumps(settings, sort_keys=True)) if is_main() else ""
        label = f"{self.source.name}{kind} tower, {self.split.name}"
        copies = max(1, self.copies) if kind == "image" else 1
        chunk = CHUNK if kind == "text" else max(1, CHUNK // copies)
        return TableSpec(broadcast_object(found), label, kind, table_width(model, kind), t.cached_dtype, copies, chunk)

    def compute(self, spec: TableSpec) -> Compute:
        """What fills the table of `spec`."""
        return self._images if spec.kind == "image" else self._texts

    def _images(self, chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        copies = max(1, self.copies)
        step = max(1, ROWS_AT_ONCE // copies)
        stretches = [(low, min(low + step, stop)) for start, stop in chunks for low in range(start, stop, step)]
        with closing(self._viewed(stretches)) as viewed:
            for start, stop in chunks:
                vectors: list[Tensor] = []
                bad: dict[int, str] = {}
                for _ in range(start, stop, step):
                    found = next(viewed)
                    if isinstance(found, DiptychError):
                        raise found
                    images, unreadable = found
                    vectors.append(self._forward(images))
                    bad |= unreadable
                rows = torch.cat(vectors).numpy()
                for record in bad:
                    rows[(record - start) * copies : (record - start + 1) * copies] = 0
                yield Rows(rows, bad=bad)

    def _viewed(self, stretches: list[Chunk]) -> Generator[Any, None, None]:
        """Images of each stretch of records, made by worker processes where there are several to be made."""
        c, form = self.config.data, self.source.model.config.image_format
        views = Views(self.split, None, c.augment if self.copies else NO_AUGMENTATION, c.decode == "scaled")
        made = _Viewed(views, form, self.copies, self.config.train.seed)
        workers = _workers_with_room(worker_count(c.workers), c.prefetch * ROWS_AT_ONCE * 3 * form.resolution**2)
        if workers == 0 or len(stretches) <= 2:
            yield from (made[s] for s in stretches)
            return
        with closing(in_workers(made, iter(stretches), workers, c.prefetch, c.timeout_s)) as results:
            yield from results

    def _texts(self, chunks: Sequence[Chunk]) -> Generator[Rows, None, None]:
        tokenizer = self.source.tokenizer.replaced()  # with counters of its own
        for start, stop in chunks:
            rows = tokenizer.encode_all([c for i in range(start, stop) for c in _captions(self.split, i)])
            order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))  # alike lengths waste no padding
            vectors = np.zeros((len(rows), table_width(self.source.model, "text")), np.float32)
            for first in range(0, len(rows), ROWS_AT_ONCE):
                part = order[first : first + ROWS_AT_ONCE]
                vectors[part] = self._forward(*tokenizer.pad([rows[i] for i in part])).numpy()
            notes = np.array([(text_id(r), r.truncated) for r in rows], np.int64).reshape(-1, 2)
            yield Rows(vectors, notes)

    @torch.no_grad()
    def _forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What a tower returns for images, or for tokens with their lengths: float32, on the host."""
        bf16 = self.config.train.precision == "bfloat16"
        self.model.eval()
        values = values.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            if lengths is not None:
                return self.model.text_vectors(values, lengths).float().cpu()
            if self.config.train.channels_last:
                values = values.contiguous(memory_format=torch.channels_last)
            return self.model.image_vectors(values).float().cpu()


class _Viewed:
    """Item (low, high) is the views of those records, one after another, and which of them cannot be read."""

    def __init__(self, views: Views, form: ImageFormat, copies: int, seed: int) -> None:
        self._views, self._form, self._copies, self._seed = views, form, copies, seed

    def __getitem__(self, stretch: Chunk) -> tuple[Tensor, dict[int, str]] | DiptychError:
        copies, bad = max(1, self._copies), dict[int, str]()
        keys = [fold(self._seed, "crop", record, j) for record in range(*stretch) for j in range(copies)]
        canvas = self._views.open(keys, self._form)
        for row, record in enumerate(range(*stretch)):
            try:
                for j in range(copies):
                    canvas.add(row * copies + j, record)
            except ShardError as error:  # not one record but a file of them: it must be mended, not passed over
                return error
            except DataError as error:
                bad[record] = str(error)
        return canvas.finished(), bad


def _captions(split: Split, record: int) -> Iterator[str]:
    try:
        yield from split.captions(record)
    except ShardError:
        raise
    except DataError:  # a broken record says nothing, and is passed over when its turn comes
        return


def _teacher(folder: str, device: torch.device) -> Source:
    found = load(Path(folder), device)
    for name in ("image_tower", "text_tower", "image_vectors", "text_vectors"):
        if not hasattr(found.model, name):
            raise ConfigError(
                f"objective.teacher must be a model with an image and a text tower; got a {type(found.model).__name__} "
                f"in {folder}. Choose another model."
            )
    return Source(found.model, found.tokenizer, "teacher's ")


def _unsharded(model: Model) -> Model:
    """`model` itself, or, where each process holds only a part of its weights, a whole copy on every process."""
    if not is_sharded(model):
        return model
    copy, scale = plain_build(model.config, model.vocab_size).to(model.pixel_mean.device), adapter_scale(model)
    with torch.no_grad():
        state = {n: whole(t) for n, t in model.state_dict().items()}
        copy.load_state_dict(state if scale is None else merged(state, scale))
    return copy


def _workers_with_room(workers: int, bytes_each: int) -> int:
    """As many of `workers` as have room in shared memory, through which their images travel."""
    shared = "/dev/shm"
    if workers == 0 or not os.path.isdir(shared):
        return workers
    return min(workers, int(0.9 * shutil.disk_usage(shared).free / bytes_each))
