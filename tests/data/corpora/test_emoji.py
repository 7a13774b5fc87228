import io
import json

import numpy as np
import pytest
from PIL import Image

from diptych.core.record import Record
from diptych.data.corpora.emoji import ARTISTS, Emoji, EmojiConfig, as_stored, concept_of
from diptych.data.sources.source import Reject
from tests.data.fake_clients import FakeClients, tgz

WORDS = {"🍎": ("red apple", ["apple", "red"]), "❤️": ("red heart", ["heart"]), "👋": ("hand", []), "🍏": ("Hand", [])}


def _picture(colour: tuple[int, ...], side: int, format: str) -> bytes:
    out = io.BytesIO()
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    image.paste(colour, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    image.save(out, format, **({"lossless": True} if format == "WEBP" else {}))
    return out.getvalue()


def _corpus(clients: FakeClients, patch: pytest.MonkeyPatch, **config: object) -> Emoji:
    names = ["1f34e", "2764-fe0f", "1f44b", "1f44b-1f3fb", "1f34f", "1f47d"]
    listing = [{"unified": n.upper(), "category": "Things", "subcategory": "thing"} for n in names]
    packages = []
    for i, artist in enumerate(ARTISTS):
        ours = names if artist != "facebook" else names[:-1]
        if artist == "fluent":
            files = {f"package/assets/{n}.webp": _picture((200, i, 0, 255), 256, "WEBP") for n in [*ours, "2764"]}
        else:
            files = {f"package/img/{artist}/64/{n}.png": _picture((200, i, 0, 255), 64, "PNG") for n in ours}
            files |= {"package/emoji.json": json.dumps(listing).encode(), f"package/img/{artist}/sheets/64.png": b""}
        if artist == "google":
            files["package/img/google/64/1f34e.png"] = b"\x89PNG\r\n\x1a\nbroken"
        packages.append(clients.serve("npm", f"{artist}-1.0.tgz", tgz(files)))
    for name, inner, words in (("cldr", "annotations", WORDS), ("derived", "annotationsDerived", {})):
        entries = {c: {"tts": [tts], "default": keywords} for c, (tts, keywords) in words.items()}
        data = json.dumps({inner: {"annotations": entries}}).encode()
        packages.append(clients.serve("npm", f"{name}-1.0.tgz", tgz({f"package/{inner}/en/annotations.json": data})))
    patch.setattr(Emoji, "packages", tuple(packages))
    return EmojiConfig(**config).build()


def test_concepts_of_all_artists_with_their_names(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(_corpus(clients, monkeypatch, val=0.0).records())
    records = {r.key: r for r in found if isinstance(r, Record)}
    assert sorted(records) == sorted([f"{a}-2764" for a in ARTISTS] + [f"{a}-1f34e" for a in ARTISTS if a != "google"])
    apple = records["twitter-1f34e"]
    assert apple.segments[1].texts == ("red apple", "apple", "red")
    assert apple.segments[1].weights == pytest.approx((0.7, 0.15, 0.15))
    assert apple.meta == {
        "split": "train",
        "artist": "twitter",
        "concept": "1f34e",
        "name": "red apple",
        "group": "Things",
        "subgroup": "thing",
    }
    assert {k: r.meta["split"] for k, r in records.items() if k.startswith("fluent")} == {
        "fluent-2764": "test",
        "fluent-1f34e": "test",
    }


def test_whatever_is_left_out_is_named(clients: FakeClients, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(_corpus(clients, monkeypatch).records())
    why = {r.key: r.reason for r in found if isinstance(r, Reject)}
    assert why["google/1f34e.png"] == "emoji_unreadable"
    assert why["fluent/2764.webp"] == "emoji_duplicate"
    assert {why[f"{a}/1f44b-1f3fb.{'webp' if a == 'fluent' else 'png'}"] for a in ARTISTS} == {"emoji_skin_tone"}
    assert why["twitter/1f47d.png"] == "emoji_not_drawn_by_all"
    assert why["twitter/1f44b.png"] == why["twitter/1f34f.png"] == "emoji_name_shared"
    assert len(why) + sum(isinstance(r, Record) for r in found) == 6 * 4 - 1 + 1


def test_held_out_pictures_are_of_different_concepts() -> None:
    source = EmojiConfig(val=0.02).build()
    splits = {(a, c): source._split(a, f"{c:04x}") for a in ARTISTS for c in range(1000)}
    held = [c for (a, c), s in splits.items() if s == "val"]
    assert len(held) == len(set(held))
    assert len(held) / 3000 == pytest.approx(0.02, abs=0.008)
    assert all((s == "test") == (a == "fluent") for (a, _), s in splits.items())


def test_pictures_are_stored_alike() -> None:
    for data in (_picture((200, 0, 0, 255), 64, "PNG"), _picture((200, 0, 0, 255), 256, "WEBP")):
        image = Image.open(io.BytesIO(as_stored(data)))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
        pixels = np.asarray(image).astype(int)
        assert tuple(pixels[0, 0]) == (255, 255, 255)
        assert tuple(pixels[32, 32]) == (200, 0, 0)
        # no dark fringe: transparent black must not bleed into the edge
        edge = pixels[16, 12:20]
        assert (edge[:, 0] >= 195).all()
    kept = Image.open(io.BytesIO(as_stored(_picture((200, 0, 0, 255), 256, "WEBP"), alpha=True)))
    assert (kept.mode, kept.getpixel((0, 0))[3], kept.getpixel((32, 32))) == ("RGBA", 0, (200, 0, 0, 255))


def test_concepts() -> None:
    assert concept_of("0023-FE0F-20E3.png") == "0023-20e3"
    assert concept_of("1f469-200d-1f4bb.webp") == "1f469-200d-1f4bb"
