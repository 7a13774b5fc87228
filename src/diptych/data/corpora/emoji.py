"""Emoji: about 1.8 k concepts, each drawn by four artists. Train on three of them, test on the fourth.

Pictures from npm emoji-datasource-google, -twitter and -facebook (PNG, 64 px) and @lobehub/fluent-emoji-3d (WebP,
256 px); English names and keywords from Unicode CLDR (npm cldr-annotations-full, cldr-annotations-derived-full).

A concept is a sequence of code points without U+FE0F (which only asks for colour) and without skin tones. Concepts that
not all four artists drew are left out, by name. All pictures are stored alike, as 64 px RGB PNG: laid over white once,
as the decoder would do each time (0.13 ms a picture instead of 0.21); `alpha=true` keeps the transparency.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from PIL import Image
from pydantic import Field, model_validator

from diptych.core.record import Record
from diptych.core.seeds import fold
from diptych.data.archive import read_members
from diptych.data.corpora.corpus import Corpus, CorpusConfig
from diptych.data.fetch import Package
from diptych.data.pack import PackConfig
from diptych.data.sources.source import Reject

ARTISTS = ("google", "twitter", "facebook", "fluent")
Artist = Literal["google", "twitter", "facebook", "fluent"]
SIDE = 64
SKIN_TONES = frozenset(f"1f3f{c}" for c in "bcdef")


class EmojiConfig(CorpusConfig):
    """`name_weight` is the chance that training draws the name of a picture; the keywords share the rest evenly."""

    val: float = Field(default=0.02, ge=0.0, le=0.3)
    """Share of the training artists' pictures that is held out, no concept twice."""
    name_weight: float = Field(default=0.7, gt=0.0, le=1.0)
    alpha: bool = False
    """Keep the alpha channel, for augmentations that want another ground than white."""
    train: tuple[Artist, ...] = ("google", "twitter", "facebook")
    test: Artist = "fluent"
    """A recipe is chosen with one of the training artists as `test` and fluent unseen; see LOG.md."""

    @model_validator(mode="after")
    def _apart(self) -> "EmojiConfig":
        if not self.train or self.test in self.train or len(set(self.train)) != len(self.train):
            raise ValueError(
                f"EmojiConfig.train must name each artist once, and not the test artist; got {self.train}."
            )
        return self

    def build(self) -> "Emoji":
        """The corpus."""
        return Emoji(self)


class Emoji(Corpus):
    """Records keyed <artist>-<code points>; meta holds artist, concept, name, group and subgroup."""

    config: EmojiConfig
    summary: ClassVar[str] = "1.8 k emoji, each drawn by four artists: train on three, test on the fourth"
    origin: ClassVar[str] = (
        "npm emoji-datasource-{google,twitter,facebook} 16.0.0, @lobehub/fluent-emoji-3d 1.1.0, CLDR 48.2"
    )
    licence: ClassVar[str] = (
        "names: Unicode-3.0; pictures: Google Noto Apache-2.0, Twitter Twemoji CC-BY-4.0, Microsoft Fluent MIT; "
        "Facebook's, (c) Facebook, come without a clear licence: for study, not for redistribution"
    )
    size: ClassVar[str] = "7.3 k pictures, 266 MB to fetch, 25 MB packed"
    version: ClassVar[str] = "1"
    packing: ClassVar[PackConfig] = PackConfig(val=0.0, vocab_size=2048, context_length=32)
    packages: ClassVar[tuple[Package, ...]] = (
        Package(
            client="npm",
            name="emoji-datasource-google",
            version="16.0.0",
            filename="emoji-datasource-google-16.0.0.tgz",
            sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        ),
        Package(
            client="npm",
            name="emoji-datasource-twitter",
            version="16.0.0",
            filename="emoji-datasource-twitter-16.0.0.tgz",
            sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        ),
        Package(
            client="npm",
            name="emoji-datasource-facebook",
            version="16.0.0",
            filename="emoji-datasource-facebook-16.0.0.tgz",
            sha256="017038cf5a4e7fcf03dd9133cbed43d4c281c4b3ce7b927c7160261b92b8821e",
        ),
        Package(
            client="npm",
            name="@lobehub/fluent-emoji-3d",
            version="1.1.0",
            filename="lobehub-fluent-emoji-3d-1.1.0.tgz",
            sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        Package(
            client="npm",
            name="cldr-annotations-full",
            version="48.2.0",
            filename="cldr-annotations-full-48.2.0.tgz",
            sha256="28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
        ),
        Package(
            client="npm",
            name="cldr-annotations-derived-full",
            version="48.2.0",
            filename="cldr-annotations-derived-full-48.2.0.tgz",
            sha256="4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
        ),
    )

    def records(self) -> Iterator[Record | Reject]:
        """Every picture of every artist, as a record or with the reason why not; artist by artist, by code points."""
        *archives, plain, derived = self.archives()
        words = {**_annotations(derived), **_annotations(plain)}
        groups: dict[str, tuple[str, str]] = {}
        drawn: dict[str, dict[str, bytes]] = {}
        for artist, archive in zip(ARTISTS, archives, strict=True):
            drawn[artist] = {}
            for member in read_members(archive, _is_picture_or_list):
                if member.name.endswith("emoji.json"):
                    groups |= _groups(member.data)
                elif member.link is None:
                    drawn[artist][PurePosixPath(member.name).name] = member.data
        concepts = {artist: {concept_of(name) for name in files} for artist, files in drawn.items()}
        captions = _unique_names({c: words[c] for c in set.intersection(*concepts.values()) if c in words})
        for artist, files in drawn.items():
            kept: dict[str, str] = {}
            for name, data in sorted(files.items(), key=lambda f: (concept_of(f[0]), -len(f[0]), f[0])):
                concept = concept_of(name)
                twin = kept.setdefault(concept, name)  # the fully qualified spelling, with U+FE0F, comes first
                reason = _left_out(concept, concepts, words, captions)
                if not reason and artist not in (*self.config.train, self.config.test):
                    reason = ("artist_unused", "by an artist who was not asked for")
                if not reason and twin != name:
                    reason = ("duplicate", f"the same concept as {twin}")
                if reason:
                    yield _reject(artist, name, data, *reason)
                    continue
                try:
                    picture = as_stored(data, self.config.alpha)
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                    yield _reject(artist, name, data, "unreadable", f"a picture that cannot be read ({error})")
                else:
                    yield self._record(artist, concept, picture, captions, groups)

    def _record(
        self,
        artist: str,
        concept: str,
        picture: bytes,
        captions: dict[str, tuple[str, tuple[str, ...]]],
        groups: dict[str, tuple[str, str]],
    ) -> Record:
        name, keywords = captions[concept]
        weights = None
        if keywords:
            share = (1.0 - self.config.name_weight) / len(keywords)
            weights = (self.config.name_weight, *(share for _ in keywords))
        group, subgroup = groups.get(concept, ("", ""))
        meta = {
            "split": self._split(artist, concept),
            "artist": artist,
            "concept": concept,
            "name": name,
            "group": group,
            "subgroup": subgroup,
        }
        return Record.pair(f"{artist}-{concept}", picture, "png", (name, *keywords), weights, meta)

    def _split(self, artist: str, concept: str) -> str:
        """By a hash of the concept: a held-out concept is held out as one of the training artists drew it."""
        if artist == self.config.test:
            return "test"
        others = self.config.train
        held_out = fold("emoji-val", concept) % 1_000_000 < self.config.val * len(others) * 1_000_000
        return "val" if held_out and artist == others[fold("emoji-artist", concept) % len(others)] else "train"


def concept_of(filename: str) -> str:
    """The code points that a picture's file name spells: lower-case hex joined by "-", without U+FE0F."""
    points = filename.lower().split(".")[0].split("-")
    return "-".join(f"{int(p, 16):04x}" for p in points if int(p, 16) != 0xFE0F)


def as_stored(data: bytes, alpha: bool = False) -> bytes:
    """A picture as PNG with a long side of 64 pixels, over white unless `alpha`; resampled in premultiplied alpha, so
    that no edge is fringed."""
    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as image:
        if max(image.size) > 4096:  # the packages hold 64 and 256 pixels; the header is read before any pixel
            raise ValueError(f"{image.width} x {image.height} pixels")
        picture = image.convert("RGBA")
    if max(picture.size) != SIDE:
        scale = SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if not alpha:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        picture = white.convert("RGB")
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def _is_picture_or_list(name: str) -> bool:
    path = PurePosixPath(name)
    if path.name == "emoji.json":
        return True
    return (path.suffix == ".png" and path.parent.name == str(SIDE)) or (
        path.suffix == ".webp" and path.parent.name == "assets"
    )


def _groups(data: bytes) -> dict[str, tuple[str, str]]:
    return {concept_of(e["unified"]): (e["category"], e["subcategory"]) for e in json.loads(data)}


def _annotations(archive: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """CLDR's English name and keywords of each concept that it names."""
    words = {}
    for member in read_members(archive, lambda name: name.endswith("/en/annotations.json")):
        (outer,) = json.loads(member.data).values()
        for characters, entry in outer["annotations"].items():
            concept = "-".join(f"{ord(c):04x}" for c in characters if ord(c) != 0xFE0F)
            if entry.get("tts"):
                name = entry["tts"][0]
                words[concept] = (name, tuple(k for k in entry.get("default", ()) if k.lower() != name.lower()))
    return words


def _unique_names(words: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Only the concepts whose names no other has: of two pictures that one query means, either would be right."""
    owners: dict[str, list[str]] = {}
    for concept, (name, _) in words.items():
        owners.setdefault(name.casefold(), []).append(concept)
    return {c: words[c] for shared in owners.values() if len(shared) == 1 for c in shared}


def _reject(artist: str, name: str, data: bytes, short: str, why: str) -> Reject:
    message = f"an emoji must be a concept that all four artists drew and CLDR names; this one is {why}."
    return Reject(f"{artist}/{name}", message, f"emoji_{short}", f"{artist}: {name}", len(data))


def _left_out(
    concept: str, concepts: dict[str, set[str]], words: dict[str, Any], captions: dict[str, Any]
) -> tuple[str, str] | None:
    """Why a concept is not in the corpus, in a word and in words; or nothing."""
    if not SKIN_TONES.isdisjoint(concept.split("-")):
        return "skin_tone", "a variant in another skin tone"
    lacking = [artist for artist, drawn in concepts.items() if concept not in drawn]
    if lacking:
        return "not_drawn_by_all", f"not drawn by {', '.join(lacking)}"
    if concept not in words:
        return "not_named", "not named by CLDR"
    return None if concept in captions else ("name_shared", "named as another concept is")
