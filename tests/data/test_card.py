"""The card of a small set with planted faults: every count is known."""

import base64
import json

import numpy as np
import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.card import CardConfig, Fewest, Mark, describe
from diptych.data.combine import combine, write_combination
from diptych.data.curate import CurationConfig, curate
from diptych.data.executors.executor import executor
from diptych.data.filters.caption_length import CaptionLengthConfig
from diptych.data.filters.image_size import ImageSizeConfig
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords, Reject
from tests.data.pictures import png

CONFIG = CardConfig(examples=2, clusters=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(dataset, curation): 12 of train, of which 3 have short captions and, of the others, all but 2 large images; 3 of
    test, of which 2 lie in train too; 1 opt-out."""
    folder = tmp_path_factory.mktemp("card")

    def records():
        for i in range(12):
            said = f"word{i}" if i < 3 else f"a red dog number {i}"
            meta = {"split": "train", "collected": {"collector": "html", "licence": "CC0-1.0" if i else ""}}
            yield Record.pair(f"{i:02d}", png(i, height=16, width=16 if i in (5, 6) else 40), "png", (said,), meta=meta)
        for i in (8, 9, 20):
            image = png(i, height=16, width=40)
            yield Record.pair(f"t{i}", image, "png", (f"held out {i}",), meta={"split": "test"})
        yield Reject("x", "the site asks not to be used.", "opt_out_noai", "https://a.example/x")

    found = list(records())
    data = folder / "d"
    pack(FromRecords(lambda: found), data, PackConfig(tokenizer="none", records_per_shard=5, min_side=8, jobs=1))
    filters = (CaptionLengthConfig(min_words=2), ImageSizeConfig(max_side=39))
    curate(data, CurationConfig(filters=filters), folder / "cur", executor("pool", 1))
    return data, folder / "cur"


def test_what_was_dropped_is_told_with_examples(made) -> None:
    data, curation = made
    chosen = describe(data, curation, CONFIG)["chosen"]
    assert (chosen["seen"], chosen["kept"], chosen["here"]) == (12, 2, 2)
    first, second = chosen["filters"]
    assert first["name"] == "caption_length"
    assert first["settings"]["min_words"] == 2
    assert [(r["reason"], r["count"]) for r in first["reasons"]] == [("short_caption", 3)]
    assert [(r["reason"], r["count"]) for r in second["reasons"]] == [("large_image", 7)]
    shown = first["reasons"][0]["examples"]
    assert len(shown) == 2
    assert all(e["captions"][0].startswith("word") for e in shown)
    assert base64.b64decode(shown[0]["jpeg"]).startswith(b"\xff\xd8")
    assert {e["captions"][0] for e in chosen["examples"]} == {"a red dog number 5", "a red dog number 6"}
    assert chosen["splits"] == ["train"]
    assert sum(chosen["words"]["whole"]["counts"]) == 12
    assert sum(chosen["words"]["kept"]["counts"]) == 2
    assert chosen["words"]["whole"]["edges"] == chosen["words"]["kept"]["edges"]
    assert chosen["words"]["kept"]["min"] == 5
    assert chosen["short_side"]["kept"]["max"] == 16


def test_overlap_and_repeats_are_found(made) -> None:
    values = describe(made[0], None, CONFIG)
    assert values["chosen"] is None
    (overlap,) = values["overlap"]
    assert (overlap["one"], overlap["other"], overlap["images"], overlap["of"]) == ("train", "test", 2, 3)
    assert {e["captions"][0] for e in overlap["examples"]} == {"held out 8", "held out 9"}
    assert [g["count"] for g in values["repeats"]] == [2, 2]
    assert {e["split"] for e in values["repeats"][0]["examples"]} == {"train", "test"}


def test_origins_and_opt_outs_are_counted(made) -> None:
    values = describe(made[0], None, CONFIG)
    origins = values["origins"]
    assert origins["licences"] == {"CC0-1.0": 11, "nothing said": 4}
    assert origins["collectors"] == {"html": 12}
    assert (origins["read"], origins["of"]) == (15, 15)
    (reject,) = values["summary"]["rejects"]
    assert (reject["reason"], reject["count"]) == ("opt_out_noai", 1)
    few = describe(made[0], None, CardConfig(examples=1, metas=4, clustered=0))
    assert few["origins"]["read"] == 4
    assert few["clusters"] == []


def test_a_card_is_the_same_each_time_and_json(made) -> None:
    one = describe(*made, CONFIG)
    assert json.dumps(one, sort_keys=True) == json.dumps(describe(*made, CONFIG), sort_keys=True)


def test_a_combination_tells_its_steps(made, tmp_path) -> None:
    data, curation = made
    write_combination(combine(["all", "of", str(data), "minus", str(curation)]), tmp_path / "rest")
    chosen = describe(data, tmp_path / "rest", CONFIG)["chosen"]
    assert chosen["here"] == 10
    assert [s["records"] for s in chosen["steps"]] == [12, 10]
    assert chosen["filters"] == []


def test_a_curation_of_another_set_is_refused(made, tmp_path) -> None:
    other = np.zeros((1, 16), np.uint8)
    from diptych.data.selection import Selection

    (tmp_path / "s").mkdir()
    Selection(other).save(tmp_path / "s" / "selection.npy")
    with pytest.raises(DataError, match="holds none of the records"):
        describe(made[0], tmp_path / "s", CONFIG)


def test_the_fewest_draws_do_not_depend_on_order() -> None:
    marks = [Mark.of(f"{i:032x}") for i in range(50)]
    found = []
    for order in (marks, marks[::-1]):
        fewest = Fewest(7)
        for mark in order:
            fewest.add(mark)
        found.append(fewest.uids())
    assert found[0] == found[1] == [m.uid for m in sorted(marks)[:7]]
    nothing = Fewest(0)
    nothing.add(marks[0])
    assert nothing.uids() == []
