"""Records to batches, in an order that neither workers nor ranks nor restarts can change.

The n-th sample of a run is a pure function of (seed, n): epoch n // N, place permute(n % N, N, seed, epoch), draws from
fold(seed, "augment", n). Global batch k holds samples [kG, (k+1)G); rank r of w takes the r-th w-th of it. A batch may
straddle two epochs, and then a record may come twice in it: duplicate-aware objectives see that by its ids.
"""

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Literal

import torch
from pydantic import Field

from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.core.errors import ConfigError, DataError, DiptychError
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.data.augment import AugmentConfig
from diptych.data.captions import Captions, LiveCaptions
from diptych.data.collate import BatchMaker
from diptych.data.curriculum import CurriculumConfig, order_of
from diptych.data.dataset import Split
from diptych.data.decode import decode_image
from diptych.data.features import FeatureTable
from diptych.data.mixture import Part
from diptych.data.patches import PatchShare
from diptych.data.pixels import Pixels, check_budget, pixel_megabytes
from diptych.data.samples import CaptionChoice
from diptych.data.token_table import CachedCaptions, token_table
from diptych.data.tokenize import Tokenizer
from diptych.data.views import Views
from diptych.data.word_starts import WordStarts
from diptych.data.workers import SHORT, cores, in_workers, measured, worker_count

Resolution = Callable[[int], int]
"""The side of a batch's images by the number of samples seen before it: a schedule of growing pictures."""

_FEW_BAD = 10


class LoaderConfig(Config):
    """Where batches come from and who prepares them.

    workers    processes that prepare batches; 0: the training process itself; -1: as many as the first batches show to
               be needed (said), at most a quarter of this rank's cores, or with a GPU all but one
    prefetch   batches that each worker keeps ready
    cache      "pixels": every image is decoded once and kept at its stored size; "auto": if `cache_mb` suffices
    cache_mb   memory for that, in MB, of all ranks of this machine together
    decode     "scaled": JPEGs whose crop is much larger than wanted are decoded at a half, a quarter or an eighth of
               their size, so that twice the wanted side is left: two to three times faster on camera originals, and
               pixels change by about half a grey level; never together with a cache
    tokens     "cached": all captions are tokenised once, into a table beside the data (or in the cache folder), if an
               epoch or more is to come; "live": those of each batch anew. Batches are the same
    captions   "draw" one of a record's captions by their weights, or always take the "first"
    max_images how many images of a record are read, the first ones (interleaved pages hold many)
    blind      every image is replaced by one of the format's mean colour, once it has been read: what a model then
               says, it has from the words alone
    selection  which records of `split` there are: a folder that `diptych curate` wrote, or a .npy of uids like
               DataComp's; empty: all. Of a mixture each part has its own
    mixture    datasets that samples come from by weight; `path` is then the run's own for tokenizer and held-out
               records, the first part's where it is empty
    curriculum an order by a score, easy records first
    max_bad    share of records that may prove unreadable during the run before it is stopped
    timeout_s  how long a worker may take for a batch
    """

    path: str = ""
    split: str = "train"
    workers: int = Field(default=-1, ge=-1)
    prefetch: int = Field(default=2, ge=1)
    cache: Literal["auto", "none", "pixels"] = "auto"
    cache_mb: int = Field(default=1024, ge=0)
    decode: Literal["full", "scaled"] = "full"
    tokens: Literal["cached", "live"] = "cached"
    captions: CaptionChoice = "draw"
    max_images: int = Field(default=5, ge=1)
    blind: bool = False
    selection: str = ""
    mixture: tuple[Part, ...] = ()
    curriculum: CurriculumConfig | None = None
    augment: AugmentConfig = AugmentConfig()
    max_bad: float = Field(default=0.01, ge=0, le=1)
    timeout_s: float = Field(default=600.0, gt=0)

    @property
    def paths(self) -> tuple[str, ...]:
        """What must be packed: the run's own dataset, then each part of the mixture (`mixture.open_datasets`)."""
        parts = tuple(part.path for part in self.mixture)
        return (self.path or (parts[0] if parts else ""), *parts)


class Loader:
    """This rank's batches of a split. `quarantine` names the records that could not be read, with the reason.

    Without an `image_format` no image is read, without a `tokenizer` no text: what no one reads need not be there.
    `features` are tables of vectors by their name in `Batch.cached`: of images that are then not read ("image"), of
    texts that are then not tokenised ("text"), or of a teacher beside them.
    """

    def __init__(
        self,
        split: Split,
        tokenizer: Tokenizer | None,
        image_format: ImageFormat | None,
        config: LoaderConfig,
        seed: int = 0,
        global_batch: int = 256,
        rank: int = 0,
        world_size: int = 1,
        features: Mapping[str, FeatureTable] | None = None,
    ) -> None:
        if len(split) == 0:
            raise DataError(f"{split.name} must hold records; got none. Look into rejected.parquet for the reasons.")
        if global_batch < 1 or global_batch % world_size:
            raise ConfigError(
                f"global_batch must be a multiple of the {world_size} processes; got {global_batch}. "
                f"Take {max(1, round(global_batch / world_size)) * world_size}."
            )
        self.split = split
        self.tokenizer = tokenizer
        self.image_format = image_format
        self.config = config
        self.seed = seed
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.quarantine: dict[str, str] = {}
        self.seen = 0
        self.truncated = 0
        self.features = dict(features or {})
        self._sees = image_format is not None and "image" not in self.features
        self._most = 1
        if image_format is not None:
            self._most = max(1, min(config.max_images, int(split.image_counts().max())))
            self._check_vectors()
        self.pixels = self._pixels() if self._sees else None
        views = Views(split, self.pixels, config.augment, config.decode == "scaled") if self._sees else None
        live = None if tokenizer is None else LiveCaptions(split, tokenizer, config.captions)
        self._maker = BatchMaker(split, seed, views, live, self.features)
        self._maker.max_images, self._maker.blind = config.max_images, config.blind
        for table in self.features.values():  # what a tower could not read has no vector, and is passed over alike
            self._maker.reader.bad |= table.bad
            for record, reason in table.bad.items():
                self._quarantine(record, reason)

    def keep_patches(self, share: PatchShare | None) -> None:
        """Let batches hold, in place of images, only the patches that a model which drops that share of them keeps."""
        self._maker.patches = share

    def mark_words(self) -> None:
        """Let batches say which tokens begin a word."""
        if self.tokenizer is not None:
            self._maker.begins_word = WordStarts(self.tokenizer)

    def one_image(self, alone: bool = False) -> None:
        """Let each record give its first image alone, and pass over those without: for objectives that compare images
        with texts one to one. With `alone`, records without an image or without a text stay, as what they are."""
        self._maker.one_image, self._maker.alone = True, alone
        if self._maker.captions is not None:
            self._maker.captions.alone = alone

    @property
    def workers(self) -> int:
        """How many worker processes will prepare batches."""
        return worker_count(self.config.workers)

    def last_sample(self, start_sample: int, stop_sample: int) -> int:
        """Where `batches` ends: `stop_sample`, less what would not divide by the ranks (fewer samples than ranks)."""
        tail_start = max(start_sample, stop_sample // self.global_batch * self.global_batch)
        return stop_sample - max(0, stop_sample - tail_start) % self.world_size

    def batches(
        self,
        start_sample: int,
        stop_sample: int,
        resolution: Resolution | int | None = None,
        total_samples: int | None = None,
    ) -> Generator[Batch, None, None]:
        """This rank's share of the global batches of samples [start_sample, stop_sample), in order.

        `total_samples` is the length of the run, by which a curriculum goes; None: it ends at `stop_sample`.

        Boundaries lie at multiples of the global batch, so a start inside a batch gives the rest of it. The last batch
        ends at `last_sample`. `resolution` overrides the format's side: a number, or a function of the samples seen
        before the batch. Raises TrainingError if a worker dies or hangs, DataError if too much cannot be read.
        """
        steps = self._steps(start_sample, stop_sample, resolution)
        total = stop_sample if total_samples is None else total_samples
        self._maker.reader.order = order_of(self.split, self.config.curriculum, self.seed, total)
        short = stop_sample - start_sample <= self.global_batch * (SHORT if self.config.workers < 0 else 1)
        workers = 0 if short else self._workers_that_fit(resolution)
        if (
            self.tokenizer is not None
            and self.config.tokens == "cached"
            and stop_sample - start_sample >= len(self.split)
        ):
            self._maker.captions = self._cached_captions(self.tokenizer) or self._maker.captions
        return self._made(steps, workers)

    def _made(self, steps: Iterator[tuple[int, int, int]], workers: int) -> Generator[Batch, None, None]:
        prepare = _Prepare(self._maker, self.image_format)
        counted = isinstance(self._maker.captions, LiveCaptions)
        if workers and self.config.workers < 0:
            workers = yield from self._tried(prepare, steps, workers, counted)
        if workers == 0:
            for step in steps:
                yield self._received(prepare[step], counted)
            return
        made = in_workers(prepare, steps, workers, self.config.prefetch, self.config.timeout_s)
        try:
            for result in made:
                yield self._received(result, counted=False)
        finally:
            made.close()

    def _tried(
        self, prepare: "_Prepare", steps: Iterator[tuple[int, int, int]], most: int, counted: bool
    ) -> Generator[Batch, None, int]:
        """The first batches, made here while the time they take is measured; returns how many workers to start."""
        trial = measured(prepare, steps, most, shared=not torch.cuda.is_available())
        while True:
            try:
                result = next(trial)
            except StopIteration as end:
                workers, why = end.value
                break
            yield self._received(result, counted)
        if why:
            many = "no worker processes" if workers == 0 else f"{workers} worker process{'es' if workers > 1 else ''}"
            say(f"loader: {many} ({why}; data.workers sets it).")
        return int(workers)

    def _steps(self, start: int, stop: int, resolution: Resolution | int | None) -> Iterator[tuple[int, int, int]]:
        stop = self.last_sample(start, stop)
        first = min(stop, (start // self.global_batch + 1) * self.global_batch)
        if (first - start) % self.world_size:
            raise ConfigError(
                f"start_sample must leave a part of its batch that divides by {self.world_size} processes; got {start} "
                f"with a global batch of {self.global_batch}. Resume with the number of processes that the run had."
            )
        return self._each_step(start, stop, resolution)

    def _each_step(self, start: int, stop: int, resolution: Resolution | int | None) -> Iterator[tuple[int, int, int]]:
        while start < stop:
            end = min(stop, (start // self.global_batch + 1) * self.global_batch)
            share = (end - start) // self.world_size
            low = start + self.rank * share
            yield low, low + share, self._side(start, resolution)
            start = end

    def _side(self, samples_seen: int, resolution: Resolution | int | None) -> int:
        if resolution is None:
            return 0 if self.image_format is None else self.image_format.resolution
        return resolution if isinstance(resolution, int) else resolution(samples_seen)

    def _received(self, result: "Batch | DiptychError", counted: bool) -> Batch:
        if isinstance(result, DiptychError):
            raise result
        assert result.meta is not None
        for record, reason in result.meta.pop("unreadable").items():
            self._quarantine(record, reason)
        self.seen += result.size
        self.truncated += result.truncated
        if not counted and self.tokenizer is not None:  # nor has a worker's copy, or a table, told this one
            self.tokenizer.count(result.size, result.truncated)
        return result

    def _quarantine(self, record: int, reason: str) -> None:
        key = self.split.key(record)
        if key in self.quarantine:
            return
        self.quarantine[key] = reason
        say(f"record {key} of {self.split.name} cannot be read and is passed over: {reason}")
        if len(self.quarantine) > max(_FEW_BAD, self.config.max_bad * len(self.split)):
            raise DataError(
                f"at most {self.config.max_bad:.1%} of {self.split.name} may be unreadable; got {len(self.quarantine)} "
                f"of {len(self.split)} records, the last {key}: {reason} Copy or pack the dataset again, or raise "
                "data.max_bad."
            )

    def _pixels(self) -> Pixels | None:
        c = self.config
        budget = c.cache_mb / max(1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        if c.cache == "none" or (c.cache == "auto" and c.decode == "scaled"):
            return None
        if c.decode == "scaled":
            raise ConfigError(
                "data.decode must be full where data.cache is pixels; got scaled. Decoding once need not be fast."
            )
        if c.cache == "pixels":
            check_budget(self.split, budget)
        elif pixel_megabytes(self.split, budget) > budget:
            return None
        pixels = Pixels(self.split, decode_image, threads=cores())
        counts = self.split.image_counts()
        for record, reason in pixels.bad.items():
            if counts[record]:  # one without an image may be a text alone
                self._quarantine(record, reason)
        return pixels

    def _cached_captions(self, tokenizer: Tokenizer) -> Captions | None:
        if isinstance(self._maker.captions, CachedCaptions):
            return self._maker.captions
        table = token_table(self.split, tokenizer)
        if table is not None and self._maker.alone and (table.first[1:] == table.first[:-1]).any():
            return None  # a table has no row for what says nothing
        return None if table is None else CachedCaptions(table, self.split, tokenizer, self.config.captions)

    def _check_vectors(self) -> None:
        """Raise ConfigError where a table of vectors, one a record, cannot stand for the images."""
        if "image" not in self.features:
            return
        if self.config.blind:
            raise ConfigError(
                "data.blind must be off where an image tower's vectors are read from a table, which has seen the "
                "images; got True. Set train.frozen=live."
            )
        if self._most > 1:
            raise ConfigError(
                f"data.max_images must be 1 where an image tower's vectors are read from a table of one a record; got "
                f"{self.config.max_images} for records of up to {self._most} images. Set it so, or train.frozen=live."
            )

    def _workers_that_fit(self, resolution: Resolution | int | None) -> int:
        """Workers whose finished batches fit into shared memory, through which they travel."""
        workers, shared = self.workers, "/dev/shm"
        if workers == 0 or not self._sees or not os.path.isdir(shared):
            return workers
        side = resolution if isinstance(resolution, int) else self._side(0, None)
        one = self.global_batch // self.world_size * self._most * 3 * side * side * self.config.prefetch
        fit = int(0.9 * shutil.disk_usage(shared).free / one)
        if fit >= workers:
            return workers
        advice = "Give the container more (--shm-size), or lower data.prefetch or data.workers."
        if self.config.workers > 0:
            raise ConfigError(
                f"data.workers must be at most {fit}, whose batches fit into shared memory; got {workers}. {advice}"
            )
        say(f"only {fit} loader workers instead of {workers}: shared memory has no room for more batches. {advice}")
        return fit


class _Prepare:
    """What a worker process holds: item (low, high, side) is the batch of samples low to high."""

    def __init__(self, maker: BatchMaker, image_format: ImageFormat | None) -> None:
        self._maker, self._format = maker, image_format

    def __getitem__(self, step: tuple[int, int, int]) -> "Batch | DiptychError":
        low, high, side = step
        bad = self._maker.reader.bad
        known = set(bad)
        try:
            format = self._format
            if format is not None and side != format.resolution:
                format = format.replace(resolution=side)
            batch = self._maker.batch(low, high, format)
        except DiptychError as error:  # as a value, since torch would wrap it in the text of a traceback
            return error
        assert batch.meta is not None
        batch.meta["unreadable"] = {r: why for r, why in bad.items() if r not in known}
        return batch
