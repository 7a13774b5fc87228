"""Conversations about images, as LLaVA and chat models write them: a .json list or a .jsonl, a conversation a row.

    {"id": "7", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                    {"from": "gpt", "value": "A fox."}]}
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "content": "A fox."}]}

Each turn becomes a text segment, of which only the answers bear loss; each tag an image segment where it stands.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.core.record import Record, Segment
from diptych.data.json_rows import JsonRow, JsonSource, WrongRow, first_object, image_segment, plain_meta
from diptych.data.sources.source import Look, Reject, SourceConfig

TURNS = ("conversations", "messages", "conversation")
IMAGES = ("image", "images")
ROLES = {
    **dict.fromkeys(("human", "user", "question"), "question"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "answer"), "answer"),
    "system": "system",
}
"""What speakers are called, and what their turns are to us."""


def recognises(found: Look) -> bool:
    """Whether the first row of a .json or .jsonl holds turns."""
    row = first_object(found)
    return any(isinstance(row.get(name), list) for name in TURNS)


class ConversationsConfig(SourceConfig):
    """Image paths start at `image_root`, else at the file's folder. `tag` stands for an image in a turn's text.
    `before_question` and `before_answer` are words that are written before each turn ("Question:", "Answer:"); they
    bear no loss."""

    path: str
    image_root: str = ""
    tag: str = "<image>"
    before_question: str = ""
    before_answer: str = ""

    def build(self) -> "Conversations":
        """The source."""
        return Conversations(self)


Piece = tuple[str, str | Any]
"""("text", words) or ("image", what names it); an image named by its tag alone is None."""


class Conversations(JsonSource):
    """A record a conversation, keyed by the number of its row."""

    config: ConversationsConfig

    def record_of(self, row: JsonRow) -> Record | Reject:
        values = row[2]
        images = iter(_images(values))
        segments = list[Segment]()
        for role, pieces in self._turns(values):
            for kind, value in pieces:
                if kind == "text":
                    segments.append(Segment("text", (value,), "txt", role=role, loss=role == "answer"))
                    continue
                if value is None and (value := next(images, None)) is None:
                    raise WrongRow(
                        "tag_without_image",
                        f"each {self.config.tag} must have its image; a conversation has more of them than images. "
                        "Add the image, or take the tag out.",
                    )
                found = image_segment(value, row, self.root, self.max_bytes)
                if isinstance(found, Reject):
                    return found
                segments.append(found)
        left = sum(1 for _ in images)
        if left:
            raise WrongRow(
                "image_without_tag",
                f"each image must have its {self.config.tag} in a turn; {left} of a conversation have none. Write the "
                "tag where the image belongs, or leave the image out.",
            )
        return Record(row[0], tuple(segments), plain_meta(values, (*TURNS, *IMAGES)))

    def _turns(self, values: dict[str, Any]) -> list[tuple[str, list[Piece]]]:
        turns = next((values[name] for name in TURNS if name in values), None)
        if not isinstance(turns, list) or not turns:
            raise WrongRow("no_turns", "a conversation must have a list of turns; it has none. Leave it out.")
        said = list[tuple[str, list[Piece]]]()
        before = {"question": self.config.before_question, "answer": self.config.before_answer}
        for turn in turns:
            role, pieces = self._turn(turn)
            if before.get(role):
                said.append(("prompt", [("text", before[role])]))
            said.append((role, pieces))
        if not any(role == "answer" for role, _ in said):
            raise WrongRow("no_answer", "a conversation must hold an answer; it holds none. Leave it out.")
        return said

    def _turn(self, turn: Any) -> tuple[str, list[Piece]]:
        if not isinstance(turn, Mapping):
            raise WrongRow("bad_turn", f"a turn must be an object; got a {type(turn).__name__}. Mend it.")
        speaker = turn.get("from", turn.get("role"))
        role = ROLES.get(str(speaker).lower())
        if role is None:
            raise WrongRow(
                "unknown_speaker", f"a turn must be of one of {', '.join(ROLES)}; got {speaker!r}. Rename the speaker."
            )
        pieces = list(_pieces(turn.get("value", turn.get("content")), self.config.tag))
        if not pieces:
            raise WrongRow("empty_turn", f"a turn must say something; one of {speaker} does not. Leave it out.")
        return role, pieces


def _pieces(content: Any, tag: str) -> Iterator[Piece]:
    """The words and images of a turn in their order."""
    if isinstance(content, str):
        parts = content.split(tag)
        for number, part in enumerate(parts):
            if number:
                yield "image", None
            if part.strip():
                yield "text", part.strip()
        return
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise WrongRow("bad_turn", f"a turn's words must be text or a list; got a {type(content).__name__}. Mend it.")
    for item in content:
        if isinstance(item, str):
            yield from _pieces(item, tag)
        elif isinstance(item, Mapping) and item.get("type") in ("image", "image_url"):
            named = {k: v for k, v in item.items() if k != "type" and v is not None}
            yield "image", named or None
        elif isinstance(item, Mapping) and isinstance(item.get("text"), str):
            yield from _pieces(item["text"], tag)
        else:
            raise WrongRow(
                "bad_turn", f"a piece of a turn must be a text or an image; got {str(item)[:60]!r}. Mend it."
            )


def _images(values: dict[str, Any]) -> list[Any]:
    """What the row itself names, one or several."""
    found: Any = next((values[name] for name in IMAGES if values.get(name) is not None), [])
    return found if isinstance(found, list) else [found]
