"""Rows of several segments: what they say, what of it bears loss, where the images stand, what is cut."""

import pytest

from diptych.core.record import Record
from diptych.data.passage import BEFORE_ALL, Row, compose, compose_alternatives
from diptych.data.record_files import Pieces, Words
from diptych.data.tokenize import Tokenizer
from tests.data import tiny_pages, tiny_split


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_split.tokenizer().with_context_length(64)


def pieces(record: Record) -> Pieces:
    """As the sidecar tells them."""
    texts = [s for s in record.segments if s.modality == "text"]
    before = [sum(t.modality == "text" for t in record.segments[:i]) for i in range(len(record.segments))]
    images = tuple(n for n, s in zip(before, record.segments, strict=True) if s.modality == "image")
    return Pieces(tuple(Words(s.texts, s.weights, s.role, s.loss) for s in texts), images)


def said(row: Row, tokenizer: Tokenizer) -> list[str]:
    """The row's tokens as words, with what bears loss in capitals and images between bars."""
    words = []
    loss = [i > 0 for i in range(len(row.ids))] if row.loss is None else row.loss
    for i, (token, bears) in enumerate(zip(row.ids, loss, strict=True)):
        words += ["|"] * row.places.count(i)
        word = {tokenizer.start_id: "<start>", tokenizer.end_id: "<end>"}.get(token, tokenizer.decode([token]))
        words.append(word.upper() if bears else word)
    return words + ["|"] * row.places.count(len(row.ids))


def test_a_pair_is_what_the_tokenizer_gives(tokenizer: Tokenizer) -> None:
    (row,) = compose([(pieces(tiny_pages.pair(3)), 1)], tokenizer)
    plain = tokenizer.encode("number 3")
    assert (row.ids, row.truncated, row.loss, row.places) == (plain.ids, plain.truncated, None, BEFORE_ALL)


def test_questions_and_answers_are_drawn_together_and_answers_alone_bear_loss(tokenizer: Tokenizer) -> None:
    rows = compose_alternatives(pieces(tiny_pages.asked(1)), tokenizer)
    assert len(rows) == 3
    for n, (row, answer) in enumerate(zip(rows, tiny_pages.ANSWERS, strict=True)):
        parts = tokenizer.bare([f"what of picture number 1 {n}", answer])
        assert row.ids == [tokenizer.start_id, *parts[0], *parts[1], tokenizer.end_id]
        assert row.loss == [False] * (1 + len(parts[0])) + [True] * (len(parts[1]) + 1)
        assert row.places == BEFORE_ALL


def test_a_segment_with_fewer_alternatives_begins_again(tokenizer: Tokenizer) -> None:
    record = Record("k", (tiny_pages.question("number"), tiny_pages.text("1", "2", role="answer")))
    first, second = compose_alternatives(pieces(record), tokenizer)
    assert tokenizer.decode(first.ids).split() == ["number", "1"]
    assert tokenizer.decode(second.ids).split() == ["number", "2"]
    assert first.places == ()


def test_images_stand_where_they_stood(tokenizer: Tokenizer) -> None:
    (row,) = compose([(pieces(tiny_pages.conversation(3)), 0)], tokenizer)
    words = said(row, tokenizer)
    shown = words.index("|")
    assert "".join(words[1:shown]) == "lookat"
    assert "".join(words[shown + 1 :]) == "whatisitNUMBER7anditsnumberSEVEN<END>"
    after = Record("k", (tiny_pages.text("number 1"), tiny_pages.image(0)))
    (row,) = compose([(pieces(after), 0)], tokenizer)
    assert said(row, tokenizer)[-2:] == ["|", "<END>"], "an image after all text stands before the end"
    page = Record("k", (tiny_pages.image(0), tiny_pages.image(1), tiny_pages.text("number 1")))
    (row,) = compose([(pieces(page), 0)], tokenizer)
    assert row.places == (0, 0)
    assert row.loss is None, "a page bears loss throughout"


def test_without_specials_nothing_is_added(tokenizer: Tokenizer) -> None:
    bare = tokenizer.replaced(start_id=None, end_id=None)
    (row,) = compose([(pieces(tiny_pages.asked(1)), 0)], bare)
    question, answer = bare.bare(["what of picture number 1 0", "red"])
    assert row.ids == question + answer
    assert row.loss == [False] * len(question) + [True] * len(answer)
    after = Record("k", (tiny_pages.text("number 1"), tiny_pages.image(0)))
    (row,) = compose([(pieces(after), 0)], bare)
    assert row.places == (len(row.ids),)
    first = Record("k", (tiny_pages.text("red", role="answer"), tiny_pages.question("what")))
    (row,) = compose([(pieces(first), 0)], bare)
    assert row.loss is not None
    assert not row.loss[0], "nothing comes before the first token"


def test_what_is_cut_is_cut_at_the_end_with_its_images(tokenizer: Tokenizer) -> None:
    whole = pieces(tiny_pages.page(5, 9))
    (row,) = compose([(whole, 0)], tokenizer)
    assert not row.truncated
    assert len(row.places) == 9
    for room in range(1, len(row.ids) - 2):
        short = tokenizer.with_context_length(room + 2)
        (cut,) = compose([(whole, 0)], short)
        assert cut.truncated
        assert short.truncated == short.seen == 1
        assert cut.ids == [*row.ids[: room + 1], tokenizer.end_id]
        assert cut.places == tuple(p for p in row.places if p == 0 or p < room + 1)
        assert cut.loss == [False] + [True] * room + [False], "the end that follows a cut is not the page's own"


def test_a_cut_leaves_no_answer_without_its_question(tokenizer: Tokenizer) -> None:
    whole = pieces(tiny_pages.asked(1))
    (row,) = compose([(whole, 2)], tokenizer)
    assert row.loss is not None
    for room in range(1, len(row.ids) - 2):
        (cut,) = compose([(whole, 2)], tokenizer.with_context_length(room + 2))
        assert cut.loss == [*row.loss[: room + 1], False]
        assert cut.truncated


def test_a_text_without_any_token_is_as_the_tokenizer_has_it(tokenizer: Tokenizer) -> None:
    for bare in (tokenizer, tokenizer.replaced(start_id=None, end_id=None)):
        (row,) = compose([(Pieces((Words(("",)),), (0,)), 0)], bare)
        assert row.ids == bare.encode("").ids
