"""Values of the meta: LAION's columns, licences, whatever a table brought."""

import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.meta_value import MetaValueConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

METAS = [
    {"punsafe": 0.1, "NSFW": "UNLIKELY", "collected": {"licence": "MIT"}},
    {"punsafe": "0.5", "NSFW": "nsfw "},
    {"punsafe": 0.6, "NSFW": "", "collected": "odd"},
    {"punsafe": "high", "collected.licence": "CC0-1.0"},
    {},
]


def test_reasons(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"caption {i}"] for i in range(5)], METAS))

    def said(**settings) -> list[str]:
        return judged(pool, MetaValueConfig(**settings), tmp_path)

    assert said(field="punsafe", most=0.5) == ["", "", "value_too_high", "no_value", "no_value"]
    assert said(field="punsafe", least=0.5, without="keep") == ["value_too_low", "", "", "", ""]
    assert said(field="NSFW", unwanted=("NSFW",), without="keep") == ["", "unwanted_value", "", "", ""]
    assert said(field="NSFW", wanted=("unlikely",)) == ["", "unwanted_value", *["no_value"] * 3]
    assert said(field="collected.licence", wanted=("MIT", "CC0-1.0")) == ["", "no_value", "no_value", "", "no_value"]
    some = judged(pool, MetaValueConfig(field="punsafe", most=0.5), tmp_path, [False] * 4 + [True])
    assert some == ["gone"] * 4 + ["no_value"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "must have least, most, wanted or unwanted"),
        ({"least": 2, "most": 1}, "least must be at most 1"),
        ({"most": float("nan")}, "most must be"),
    ],
)
def test_settings_that_cannot_be(settings, words) -> None:
    with pytest.raises(ConfigError, match=words):
        MetaValueConfig(field="punsafe", **settings)
