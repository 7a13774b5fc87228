"""Origins: what meta says, whatever it says."""

import pytest

from diptych.data.card_origins import TOP, Origins, script


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a dog", "latin"),
        ("Žába", "latin"),
        ("Жаба.", "cyrillic"),
        ("青蛙", "cjk"),
        ("a Лягушка", "cyrillic"),
        ("12 !", "none"),
        ("", "none"),
    ],
)
def test_scripts_are_those_of_most_letters(text, name) -> None:
    assert script(text) == name


def test_meta_is_counted_where_it_says_something() -> None:
    origins = Origins()
    said = {"collector": "html", "rule": "laion", "origin": "https://a.example/p?q", "licence": "CC-BY-4.0"}
    origins.add({"collected": {**said, "opt_out": "noai"}, "language": "en"}, ("a dog", "two dogs"))
    origins.add({"licence": "MIT", "url": "http://b.example:81/x.png", "synthetic": 1}, ("Жаба",))
    origins.add({"collected": {"collector": "table", "origin": "/data/reports.csv"}}, ())
    origins.add({"collected": "odd", "licence": ["x"], "url": "http://[bad", "synthetic": "many"}, ("b",))
    found = origins.counts()
    assert (found["read"], found["texts"], found["synthetic"]) == (4, 4, 1)
    assert found["licences"] == {"nothing said": 2, "CC-BY-4.0": 1, "MIT": 1}
    assert found["collectors"] == {"html, rule laion": 1, "table": 1}
    assert found["hosts"] == {"[bad": 1, "a.example": 1, "b.example": 1, "reports.csv": 1}
    assert found["opt_outs"] == {"noai": 1}
    assert found["languages"] == {"en": 1}
    assert found["scripts"] == {"latin": 2, "cyrillic": 1}


def test_long_tails_are_counted_together() -> None:
    origins = Origins()
    for i in range(TOP + 5):
        origins.add({"licence": f"licence {i:03d} " + "x" * 500}, ())
    found = origins.counts()["licences"]
    assert len(found) == TOP + 1
    assert found["5 others"] == 5
    assert max(map(len, found)) <= 120
