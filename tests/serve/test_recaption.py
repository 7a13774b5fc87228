import json

import pyarrow.parquet as pq
import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data.card import describe
from diptych.data.dataset import Dataset
from diptych.data.sources.source import Reject
from diptych.serve import recaption as module
from diptych.serve.caption_journal import Written
from diptych.serve.caption_writing import CaptionWriting
from diptych.serve.recaption import RecaptionConfig, RecaptionReport, decide, recaption
from tests.models.small_fusion import small_blip
from tests.serve.test_caption_writing import pretrained
from tests.train.tiny_run import tiny_dataset

CONFIG = RecaptionConfig(writing=CaptionWriting(max_tokens=4, batch_size=8), jobs=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return Dataset.open(tiny_dataset(tmp_path_factory.mktemp("data"), copies=1))


@pytest.fixture(scope="module")
def model(data):
    return pretrained(small_blip(), data)


def record(*texts: str, weights=None) -> Record:
    return Record.pair("k", b"...", "png", texts, weights, {"artist": "x"})


def texts_of(found) -> tuple:
    return found.segments[1].texts, found.segments[1].weights


def test_texts_below_the_threshold_are_dropped_old_and_new():
    report = RecaptionReport("out")
    line = Written("u", "", ["new", "bad", "OLD", ""], [1.0, -1.0, 2.0, 3.0], [0.5, -0.5])
    found = decide(record("old", "wrong", weights=(3.0, 1.0)), line, RecaptionConfig(weight=0.5), report)
    assert texts_of(found) == (("old", "new"), (3.0, 1.5))
    assert found.meta == {"artist": "x", "synthetic": 1}
    assert (report.records, report.written, report.kept) == (1, 4, 1)
    assert report.dropped == {"empty": 1, "repeats": 1, "unmatched": 1}
    assert (report.originals, report.originals_dropped) == (2, 1)
    assert report.synthetic_share == 0.5
    assert "1 kept (25.0%); they are 50.0% of all captions now" in str(report)
    assert "1 empty, 1 repeats, 1 unmatched" in str(report)


def test_what_is_better_than_all_originals_is_kept_beside_them():
    report = RecaptionReport("out")
    line = Written("u", "", ["one", "two"], [1.0, 0.2], [0.5, -0.5])
    found = decide(record("a", "b"), line, RecaptionConfig(rule="better"), report)
    assert texts_of(found) == (("a", "b", "one"), None)
    assert report.dropped == {"not_better": 1}
    assert report.originals_dropped == 0


def test_without_a_judge_all_that_is_new_is_kept():
    report = RecaptionReport("out")
    found = decide(record("a"), Written("u", "", ["b", "b"]), RecaptionConfig(weight=2.0), report)
    assert texts_of(found) == (("a", "b"), (1.0, 2.0))
    assert report.dropped == {"repeats": 1}


def test_a_record_without_any_caption_left_is_rejected_and_one_left_alone_is_kept():
    report = RecaptionReport("out")
    lost = decide(record("a"), Written("u", "", ["b"], [-1.0], [-2.0]), RecaptionConfig(), report)
    assert isinstance(lost, Reject)
    assert lost.reason == "no_caption_kept"
    given = record("a")
    assert decide(given, Written("u", "not_a_pair"), RecaptionConfig(), report) is given
    assert (report.lost, report.left) == (1, {"not_a_pair": 1})


def test_a_dataset_is_captioned_anew_and_packed(data, model, tmp_path):
    out = tmp_path / "new"
    report = recaption(data, model, out, CONFIG, model)
    made = Dataset.open(out)
    assert report.records == len(data.split("train"))
    assert report.written == report.records
    assert len(made.split("train")) == report.records - report.lost
    assert made.split("val").captions(0) == data.split("val").captions(0)
    old = {data.split("train").key(i): data.split("train").image_bytes(i) for i in range(len(data.split("train")))}
    texts = 0
    for i in range(len(made.split("train"))):
        assert made.split("train").image_bytes(i) == old[made.split("train").key(i)]
        texts += len(made.split("train").captions(i))
    assert texts == report.kept + report.originals - report.originals_dropped
    assert made.info["rejected"].get("no_caption_kept", 0) == report.lost
    assert made.tokenizer().encode("a red dot") == data.tokenizer().encode("a red dot")
    said = json.loads((out / "recaption.json").read_text())
    assert said["kept"] == report.kept == made.info["captions"]["synthetic"]
    rows = pq.read_table(out / "records.parquet").to_pylist()
    assert sum(r["synthetic"] for r in rows) == report.kept
    origins = describe(out)["origins"]  # what the card shows
    assert origins["synthetic"] == report.kept
    assert origins["texts"] == made.info["captions"]["texts"]
    assert said["settings"]["threshold"] == 0
    assert not list(tmp_path.glob(".*.jsonl"))


def test_one_that_was_cut_off_goes_on_to_the_same(data, model, tmp_path, monkeypatch):
    """Killed after a batch: what is written before is not written again, and the dataset is the same."""
    whole = tmp_path / "whole"
    recaption(data, model, whole, CONFIG)
    batches = []
    plain = module.CaptionWriter.about

    def until_the_second(self, dataset, places):
        batches.append(len(places))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return plain(self, dataset, places)

    monkeypatch.setattr(module.CaptionWriter, "about", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        recaption(data, model, tmp_path / "cut", CONFIG)
    assert not (tmp_path / "cut").exists()
    recaption(data, model, tmp_path / "cut", CONFIG)
    assert sum(batches) == len(data.split("train")) + batches[1]
    assert Dataset.open(tmp_path / "cut").fingerprint == Dataset.open(whole).fingerprint


def test_one_that_was_cut_off_before_its_report_is_finished(data, model, tmp_path, monkeypatch):
    """And a dataset of another origin, beside which a journal lies, is not taken for it."""
    out, journal = tmp_path / "out", tmp_path / ".out.captions.jsonl"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            recaption(data, model, out, CONFIG)
    assert journal.is_file()
    assert not (out / "recaption.json").exists()
    before = Dataset.open(out).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(module.CaptionWriter, "about", killed)  # nothing is written again
        recaption(data, model, out, CONFIG)
    assert Dataset.open(out).fingerprint == before
    assert (out / "recaption.json").is_file()
    assert not journal.exists()
    with monkeypatch.context() as patch:
        patch.setattr(module.Journal, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            recaption(data, model, tmp_path / "told", CONFIG)
    recaption(data, model, tmp_path / "told", CONFIG)  # when its journal alone was left
    assert not list(tmp_path.glob(".told*"))
    assert Dataset.open(tmp_path / "told").fingerprint == before
    tiny_dataset(tmp_path / "mine", copies=1)
    (tmp_path / ".mine.captions.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="the output must be new"):
        recaption(data, model, tmp_path / "mine", CONFIG)


def test_outputs_and_splits_that_cannot_be_are_refused(data, model, tmp_path):
    with pytest.raises(ConfigError, match="must lie outside of the dataset"):
        recaption(data, model, data.path / "inside", CONFIG)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ConfigError, match="the output must be new, or with --overwrite a dataset"):
        recaption(data, model, tmp_path / "full", CONFIG)
    with pytest.raises(DataError, match=r"a split of .* must be one of train, val; got 'dev'"):
        recaption(data, model, tmp_path / "x", CONFIG.replace(splits=("dev",)))
    with pytest.raises(ConfigError, match="splits must be different ones"):
        recaption(data, model, tmp_path / "x", CONFIG.replace(splits=("train", "train")))


def test_questions_are_left_as_they_are(model, tmp_path):
    asked = Dataset.open(tiny_dataset(tmp_path / "asked", copies=1, questions=True))
    report = recaption(asked, model, tmp_path / "out", CONFIG)
    assert report.left == {"not_a_pair": 20}
    assert Dataset.open(tmp_path / "out").split("train").pieces(0) == asked.split("train").pieces(0)
    assert torch.is_tensor(model.model.log_logit_scale)
