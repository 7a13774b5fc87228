import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import diptych.data.views as views
import diptych.train.tables as tables
from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import CheckpointError, ConfigError
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.dataset import Dataset
from diptych.data.features import views_of
from diptych.data.loader import Loader
from diptych.train.build import build, build_objective, find_tokenizer
from diptych.train.config import RunConfig
from diptych.train.loop import train
from diptych.train.tables import Filler, Source, cached_names
from tests.train.locked import lit, save_teacher, student
from tests.train.staged import language_run, prefix_run
from tests.train.tiny_run import tiny_dataset

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset of this test alone: tables lie in it."""
    (tmp_path / "data").mkdir()
    return tiny_dataset(tmp_path / "data")


def losses(run: Path, *names: str) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r[name] for r in records for name in names or ("loss", "val_loss") if name in r]


@pytest.mark.parametrize(("kind", "micro_batch"), [("image", 6), ("text", 0)])
def test_training_from_the_table_is_training_with_the_live_tower(data, tmp_path, kind, micro_batch):
    """Tolerance: the table's matrix products have another number of rows, and may round otherwise; then come Adam's."""
    settings = {"freeze": (kind,), "val_batches": 1, "micro_batch": micro_batch, "ema_decay": 0.9}
    live = train(lit(data, **settings, frozen="live"), tmp_path / "live")
    cached = train(lit(data, **settings), tmp_path / "cached")
    assert losses(cached) == pytest.approx(losses(live), rel=1e-6)
    a, b = (load_file(run / "model" / "model.safetensors") for run in (live, cached))
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=2e-5)
        assert not name.startswith(f"{kind}_tower.") or torch.equal(a[name], b[name])
    assert len(list((data / "features").glob("*/table.json"))) == 2  # train and val
    assert losses(cached, "truncated") == losses(live, "truncated")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_rows_are_what_the_tower_returns(data, tmp_path, kind):
    """In a batch of the same size; in others products of matrices round otherwise, in the last bits (so do texts')."""
    run, _ = build(lit(data, kind, val_batches=1), tmp_path / "run", False, CPU)
    model, table = run.objective.model, run.tables["val"][kind]
    loader = Loader(
        run.dataset.split("val"),
        run.tokenizer,
        model.config.image_format,
        run.config.data.replace(captions="first"),
        0,
        20,
    )
    batch = next(loader.batches(0, 20))
    records = torch.tensor(batch.meta["records"])
    order = records.argsort()
    with torch.no_grad():
        if kind == "image":
            live = model.image_vectors(batch.images[order])
            assert torch.equal(table.gather(range(20), [0] * 20), live)
        else:
            live = model.text_vectors(batch.tokens[order], batch.lengths[order])
            torch.testing.assert_close(table.gather(range(20), [0] * 20), live, rtol=1e-5, atol=1e-6)
            assert torch.equal(table.notes(range(20), [0] * 20)[:, 0], batch.text_ids[order])


def test_value_and_gradient_of_a_step_are_those_of_the_live_tower(data, tmp_path):
    """Tolerance: as above."""
    found = []
    for frozen in ("live", "cached"):
        run, _ = build(lit(data, frozen=frozen), tmp_path / frozen, False, CPU)
        form, features = run.config.model.image_format, run.tables.get("train")
        loader = Loader(run.split, run.tokenizer, form, run.config.data, 0, 16, features=features)
        batch = next(loader.batches(0, 32))
        assert (batch.images is None) is (frozen == "cached")
        loss = run.accumulate(batch).losses.total
        found.append([loss, *(p.grad for p in run.objective.parameters() if p.requires_grad)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_no_image_is_read_once_the_table_is_there(data, tmp_path, monkeypatch, capsys):
    first = train(lit(data), tmp_path / "first")
    said = capsys.readouterr().err
    assert "image tower, train: 40 images x 8 in float32" in said
    assert "frozen" in said

    def never(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(views, "decode_image", never)
    second = train(lit(data), tmp_path / "second")
    assert "computed once" not in capsys.readouterr().err
    assert losses(second) == losses(first)


def test_a_resumed_run_finds_its_table(data, tmp_path, monkeypatch):
    config = lit(data, save_every_samples=16)
    model = config.model.build(280)
    save_pretrained(tmp_path / "init", model, find_tokenizer(config, Dataset.open(data)))
    config = config.replace(init=str(tmp_path / "init"))
    train(config, tmp_path / "run")
    whole = (tmp_path / "run/model/model.safetensors").read_bytes()
    for left in sorted((tmp_path / "run/checkpoints").iterdir())[1:]:
        shutil.rmtree(left)
    shutil.rmtree(tmp_path / "run/model")
    shutil.rmtree(tmp_path / "init")
    monkeypatch.setattr(tables.Filler, "_images", lambda *_: pytest.fail("computed again"))
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == whole


def fingerprint(config: RunConfig, kind: str = "image", copies: int = 0, change=None, split: str = "train") -> str:
    dataset = Dataset.open(config.data.path)
    tokenizer = find_tokenizer(config, dataset)
    model = build_objective(config, tokenizer, CPU).model
    if change is not None:
        change(model)
    filler = Filler(config, Source(model, tokenizer, ""), dataset.split(split), copies, CPU)
    return filler.spec(kind, dataset.fingerprint).fingerprint


def test_every_thing_that_decides_a_row_is_in_the_fingerprint(data, tmp_path):
    config = lit(data)

    def train_with(**settings: object) -> RunConfig:
        return config.replace(train=config.train.replace(**settings))

    def model_with(**settings: object) -> RunConfig:
        return config.replace(model=config.model.replace(**settings))

    def stir(model) -> None:
        with torch.no_grad():
            model.image_tower.position_embed.view(-1)[0] += 1e-6

    other = tmp_path / "other"
    other.mkdir()
    tiny_dataset(other, copies=1)
    crops = AugmentConfig(crop_scale=(0.5, 1.0))
    mean = config.model.image_format.replace(mean=(0.5, 0.5, 0.5))
    found = {
        "same": fingerprint(config),
        "weights": fingerprint(config, change=stir),
        "seed of the weights": fingerprint(train_with(seed=1)),
        "tower": fingerprint(model_with(image=config.model.image.replace(activation="quick_gelu"))),
        "format": fingerprint(model_with(image_format=config.model.image_format.replace(resize="squash"))),
        "mean": fingerprint(model_with(image_format=mean)),
        "decode": fingerprint(config.replace(data=config.data.replace(decode="scaled"))),
        "dtype": fingerprint(train_with(cached_dtype="float16")),
        "precision": fingerprint(train_with(precision="bfloat16")),
        "split": fingerprint(config, split="val"),
        "data": fingerprint(config.replace(data=config.data.replace(path=str(other)))),
        "crops": fingerprint(config, copies=2),
        "more crops": fingerprint(config, copies=3),
        "augmentation": fingerprint(config.replace(data=config.data.replace(augment=crops)), copies=2),
        "text": fingerprint(config, "text"),
    }
    assert len(set(found.values())) == len(found)
    assert fingerprint(config) == found["same"]
    unrelated = config.replace(data=config.data.replace(augment=crops, workers=3)).replace(
        model=config.model.replace(text=config.model.text.replace(activation="quick_gelu"))
    )
    assert fingerprint(unrelated) == found["same"]  # not augmented, and another tower's own


def test_another_tokenizer_or_context_is_another_table_of_texts(data, tmp_path):
    from diptych.data.tokenize import Tokenizer

    config = lit(data)
    Tokenizer.train(["another one"], vocab_size=280, context_length=8).save(tmp_path)
    same, shorter = fingerprint(config, "text"), config.replace(model=config.model.replace(context_length=6))
    trained = Tokenizer.load(data)

    def spec(tokenizer: Tokenizer) -> str:
        model = build_objective(config, trained, CPU).model
        split = Dataset.open(data).split("train")
        return Filler(config, Source(model, tokenizer, ""), split, 0, CPU).spec("text", "d").fingerprint

    assert spec(trained) != spec(trained.replaced(canonicalise="none"))
    assert same != fingerprint(shorter, "text")


def test_crops_are_those_of_their_keys_and_each_sample_draws_one(data, tmp_path):
    augment = AugmentConfig(crop_scale=(0.3, 0.6), flip=0.5)
    config = lit(data, augment=augment, cached_crops=3)
    run, _ = build(config, tmp_path / "run", False, CPU)
    table = run.tables["train"]["image"]
    assert table.copies == 3
    model = run.objective.model.eval()
    from diptych.core.seeds import fold
    from diptych.data.augment import augment as vary
    from diptych.data.decode import decode_image

    images = [decode_image(run.split.image_bytes(5))] * 3
    keys = [fold(config.train.seed, "crop", 5, j) for j in range(3)]
    with torch.no_grad():
        rows = model.image_vectors(vary(images, keys, augment, config.model.image_format))
    assert len({tuple(r) for r in rows.tolist()}) == 3
    torch.testing.assert_close(table.gather([5] * 3, [0, 1, 2]), rows, rtol=1e-5, atol=1e-6)
    loader = Loader(
        run.split, run.tokenizer, config.model.image_format, config.data, 0, 16, features=run.tables["train"]
    )
    batch = next(loader.batches(0, 32))
    assert batch.images is None
    assert batch.image_ids.shape == (16,)
    drawn = views_of([fold(0, "augment", n) for n in range(16)], 3)
    assert torch.equal(batch.cached["image"], table.gather(batch.meta["records"], drawn))


def test_augmentation_that_does_not_apply_is_said(data, tmp_path, capsys):
    build(lit(data, augment=AugmentConfig()), tmp_path / "run", False, CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert "data.augment does not vary the images" in said
    assert "train.cached_crops=8" in said


def test_float16_is_close_and_half_the_size(data, tmp_path):
    a, _ = build(lit(data), tmp_path / "a", False, CPU)
    b, _ = build(lit(data, cached_dtype="float16"), tmp_path / "b", False, CPU)
    exact, short = (r.tables["train"]["image"].gather(range(40), [0] * 40) for r in (a, b))
    assert not torch.equal(exact, short)
    torch.testing.assert_close(short, exact, rtol=1e-3, atol=1e-4)


def test_an_unreadable_image_is_passed_over_as_in_live_training(data, tmp_path, capsys):
    tar = next((data / "train").glob("00000.tar"))
    split = Dataset.open(data).split("train")
    raw = tar.read_bytes()
    at = raw.index(split.image_bytes(3))
    rotten = raw[: at + 8] + bytes(40) + raw[at + 48 :]
    tar.write_bytes(rotten)
    found = {}
    for frozen in ("live", "cached"):
        config = lit(data, frozen=frozen)
        config = config.replace(data=config.data.replace(max_bad=0.5))
        train(config, tmp_path / frozen)
        lines = (tmp_path / frozen / "quarantine.jsonl").read_text().splitlines()
        found[frozen] = ([json.loads(x) for x in lines], losses(tmp_path / frozen))
    assert len(found["live"][0]) == 1
    assert [x["key"] for x in found["cached"][0]] == [x["key"] for x in found["live"][0]]
    assert found["cached"][1] == pytest.approx(found["live"][1], rel=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"cached_crops": 2, "frozen": "live"}, "cached_crops must be 0"),
        ({"cached_crops": 2, "freeze": ("text",)}, "cached_crops must be 0"),
        ({"progressive": ((0.0, 4), (0.5, 8))}, "progressive must be empty"),
    ],
)
def test_what_no_table_can_hold_is_refused_and_leaves_no_folder(data, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(lit(data, **settings), tmp_path / "run", False, CPU)
    assert not (tmp_path / "run").exists()


def test_an_objective_that_needs_the_images_themselves_says_so(data, monkeypatch):
    config = lit(data)
    objective = build_objective(config, find_tokenizer(config, Dataset.open(data)), CPU)
    assert cached_names(config, objective) == ["image"]
    monkeypatch.setattr(type(objective), "takes_cached", False)
    with pytest.raises(ConfigError, match=r"train\.frozen must be live"):
        cached_names(config, objective)


def test_a_student_learns_from_a_stored_teacher(data, tmp_path):
    save_teacher(data, tmp_path / "teacher")
    config = student(data, tmp_path / "teacher", freeze=())
    run = train(config.replace(data=config.data.replace(augment=AugmentConfig())), tmp_path / "student")
    records = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert len([r["distill"] for r in records if "distill" in r]) == 3
    assert records[-1]["val_loss"] > 0
    assert len(list((data / "features").glob("*/table.json"))) == 4  # two towers, two splits
    found, _ = build(student(data, tmp_path / "teacher"), tmp_path / "both", False, CPU)
    assert set(found.tables["train"]) == {"image", "teacher_image", "teacher_text"}
    with pytest.raises(CheckpointError, match="not there"):
        build(student(data, tmp_path / "nobody"), tmp_path / "gone", False, CPU)


@pytest.mark.dist
def test_two_processes_share_tables_and_train_to_the_weights_of_one(two_processes, tmp_path):
    """Tolerance: float32 sums split in another place, through three steps of Adam."""
    data = shutil.copytree(two_processes / "data", tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    alone = train(student(data, two_processes / "teacher"), tmp_path / "run")
    together = two_processes / "student"
    names = sorted(p.parent.name for p in (data / "features").glob("*/table.json"))
    assert len(names) == 6
    for name in names:
        a, b = (np.load(folder / "features" / name / "rows.npy") for folder in (data, two_processes / "data"))
        assert np.array_equal(a, b)
    a, b = (load_file(run / "model" / "model.safetensors") for run in (alone, together))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-5, rtol=1e-4)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)


def test_the_plan_of_a_locked_run_counts_what_trains(data):
    from diptych.train.plan import cost, plan

    free, locked, live = (cost(lit(data, **s), 280) for s in ({"freeze": ()}, {}, {"frozen": "live"}))
    image, rest = (free.parameters[n] for n in ("image_tower", "text_tower"))
    assert free.fixed_bytes == 4 * 4 * (image + rest + 1)
    assert locked.fixed_bytes == live.fixed_bytes == 4 * (image + 4 * (rest + 1))
    assert locked.flops_per_sample < live.flops_per_sample < free.flops_per_sample
    assert "frozen       image_tower" in plan(lit(data))


@pytest.mark.slow
def test_a_writers_frozen_tower_is_read_from_a_table_of_its_tokens(data, tmp_path):
    """LLaVA's alignment: all that the language side reads of an image is computed once."""
    settings = {"only": ("connector",), "samples_seen": 64, "val_batches": 1}

    def run(**more: object) -> RunConfig:
        config = prefix_run(data, **settings, **more)
        return config.replace(data=config.data.replace(augment=NO_AUGMENTATION))

    live, cached = train(run(frozen="live"), tmp_path / "live"), train(run(), tmp_path / "cached")
    names = ("loss", "val_loss", "val_loss_mismatched", "sight")
    for name in names:
        assert losses(cached, name) == pytest.approx(losses(live, name), rel=1e-4, abs=1e-6), name
    assert losses(cached, "sight")[-1] != 0
    (table, _) = (json.loads(p.read_text()) for p in (data / "features").glob("*/table.json"))
    assert table["width"] == 5 * 16  # CLS and four patches
    again = run()
    again = again.replace(model=again.model.replace(reading=again.model.reading.replace(cls=False)))
    train(again, tmp_path / "again")
    assert len(list((data / "features").glob("*/table.json"))) == 4  # another reading is another table


def test_what_no_one_reads_gets_no_table(data):
    config = language_run(data)
    objective = build_objective(config, find_tokenizer(config, Dataset.open(data)), CPU)
    assert cached_names(config, objective) == []
