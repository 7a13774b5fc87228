"""Addresses and numbers of people, and numbers that are none."""

import pytest

from diptych.core.errors import ConfigError
from diptych.data.candidates import CandidatePool
from diptych.data.filters.personal_data import PersonalDataConfig, holds
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

EMAILS = ["write to jane.doe@example.org", "Jane@Mail.Example.co.uk!", "a+b@c.de", "jane [at] example [dot] org"]
NO_EMAILS = ["@jane on the stage", "meet me at example.org", "a @ b", "5 apples @ 3.50", "cat at (the) door"]
PHONES = [
    *(
        "call +49 30 1234567",
        "+1 (555) 010-9999",
        "(555) 010-9999",
        "555-010-9999",
        "555.010.9999",
        "0044 20 7946 0000",
    ),
    *("030/1234567", "020 7946 0000", "Tel. 12345678", "phone: 5550109999", "01 23 45 67 89", "+4930123456789"),
]
NO_PHONES = [
    *("2019-03-12", "12.03.2019", "1914-1918", "a photo of 1920 x 1080 pixels", "shutterstock 1234567890", "route 66"),
    *("ISBN 978-3-16-148410-0", "$1,234,567", "10 000 000 people", "3.14159265", "10:30 - 11:45", "2010 2011 2012"),
    *("lot 007", "temperature of -12.5", "v1.2.3", "hotel 123456", "550e8400-e29b-41d4-a716-446655440000", "007 1962"),
]


def test_texts() -> None:
    assert [t for t in EMAILS if not holds("email", t)] == []
    assert [t for t in NO_EMAILS if holds("email", t)] == []
    assert [t for t in PHONES if not holds("phone", t)] == []
    assert [t for t in NO_PHONES if holds("phone", t)] == []
    assert holds("ip_address", "a screen with 8.8.8.8 on it")
    assert not any(holds("ip_address", t) for t in ("192.168.0.1", "999.1.1.1", "version 1.2.3", "8.8.8.8.8"))


def test_any_text_of_a_record_counts(tmp_path) -> None:
    captions = [["a dog"], ["a cat", "write to a@b.org"], ["call +49 30 1234567"], ["ping 8.8.8.8"]]
    pool = CandidatePool(packed_pool(tmp_path / "d", captions))
    assert judged(pool, PersonalDataConfig(), tmp_path) == ["", "email", "phone", ""]
    assert judged(pool, PersonalDataConfig(of=("ip_address",)), tmp_path) == ["", "", "", "ip_address"]
    with pytest.raises(ConfigError, match="of"):
        PersonalDataConfig(of=("face",))


def test_long_texts_of_hostile_form_take_no_time() -> None:
    import time

    start = time.perf_counter()
    for text in (
        "a." * 20_000,
        "1 " * 20_000,
        "+1" + "-1" * 20_000,
        "a@" + "b." * 20_000,
        "0" * 40_000,
        "[at]" * 9_000,
    ):
        for what in ("email", "phone", "ip_address"):
            holds(what, text)
    assert time.perf_counter() - start < 3
