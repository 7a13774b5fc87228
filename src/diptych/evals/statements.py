"""Yes or no without asking: which of two sentences suits a picture better, that something is there or that it is not.

For models that score pairs and do not write. Negation is what embeddings are known to understand least: a low value may
say more of that than of what the model sees.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diptych.data.image_reader import ImageReader
from diptych.evals.questions import Question
from diptych.evals.scoring import EmbeddedItems, Items, ScoredItems, Scoring, read_gallery
from diptych.models.pretrained import Pretrained


class Weighed(NamedTuple):
    """Questions (statements) whose image can be read, yes or no to each, and the hash of each one's image."""

    asked: list[Question]
    said: list[str]
    hashes: list[bytes]


def weigh_statements(
    model: Pretrained, reader: ImageReader, asked: Sequence[Question], denials: Mapping[str, str], scoring: Scoring
) -> Weighed:
    """Whether each statement scores higher with its image than its denial (`denials`); of equals the answer is no."""
    of_place: dict[int, list[Question]] = {}
    for q in asked:
        of_place.setdefault(q.place, []).append(q)
    embeds = scoring.by == "embeddings"
    gallery = read_gallery(model, reader, list(of_place), "pope", embeds)
    affirmed = list(dict.fromkeys(q.question for q in asked))
    texts = affirmed + [denials[t] for t in affirmed]
    items: Items
    if embeds:
        assert gallery.vectors is not None
        items = EmbeddedItems(gallery.vectors, model.embed_text(texts))
    else:
        items = ScoredItems(model, reader, gallery.places, texts, scoring)
    scores = items.rows(0, len(gallery.places))
    higher = scores[:, : len(affirmed)] > scores[:, len(affirmed) :]
    column = {text: n for n, text in enumerate(affirmed)}
    kept = [(row, q) for row, place in enumerate(gallery.places) for q in of_place[place]]
    said = ["yes" if bool(higher[row, column[q.question]]) else "no" for row, q in kept]
    return Weighed([q for _, q in kept], said, [gallery.hashes[row] for row, _ in kept])
