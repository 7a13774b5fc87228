"""A split whose records hold any number of segments: pairs, questions with answers, conversations, pages, texts."""

from pathlib import Path

from diptych.core.record import Record, Segment
from diptych.data.dataset import Split
from diptych.data.decode import encode_png
from diptych.data.shards import ShardWriter
from tests.data import tiny_split

SIDE = 12
ANSWERS = ("red", "green", "blue and a bit of everything")


def image(i: int) -> Segment:
    return Segment("image", encode_png(tiny_split.picture(i, SIDE, SIDE)), "png", role="image")


def text(
    *alternatives: str, role: str = "caption", loss: bool = True, weights: tuple[float, ...] | None = None
) -> Segment:
    return Segment("text", alternatives, "txt", role=role, loss=loss, weights=weights)


def question(*alternatives: str, weights: tuple[float, ...] | None = None) -> Segment:
    return text(*alternatives, role="question", loss=False, weights=weights)


def pair(i: int) -> Record:
    return Record.pair(f"pair{i}", image(i).data, "png", (f"picture number {i}", f"number {i}"), (0.7, 0.3))


def asked(i: int, weights: tuple[float, ...] | None = None) -> Record:
    questions = tuple(f"what of picture number {i} {n}" for n in range(3))
    return Record(f"asked{i}", (image(i), question(*questions, weights=weights), text(*ANSWERS, role="answer")))


def conversation(i: int) -> Record:
    turns = (question("look at"), image(i), question("what is it"), text("number 7", role="answer"))
    return Record(f"talk{i}", (*turns, question("and its number"), text("seven", role="answer")))


def page(i: int, length: int = 3) -> Record:
    parts = [s for n in range(length) for s in (text(f"number {n}"), image(100 * i + n))]
    return Record(f"page{i}", (*parts, text("the end")))


def alone(i: int) -> Record:
    return Record(f"alone{i}", (text(f"only words number {i}"),))


RECORDS = (pair(0), asked(1), asked(2, (1.0, 0.0, 3.0)), conversation(3), page(4), page(5, 9), alone(6), pair(7))
"""One of each kind; page5 holds nine images and more text than the context has room for."""


def opened(folder: Path, records: tuple[Record, ...] = RECORDS, per_shard: int = 5) -> Split:
    """The split of some records, in shards."""
    with ShardWriter(folder, records_per_shard=per_shard) as writer:
        for record in records:
            writer.add(record, sizes=[(SIDE, SIDE)] * sum(s.modality == "image" for s in record.segments))
    return Split("train", sorted(folder.glob("*.tar")))
