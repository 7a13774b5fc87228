from types import SimpleNamespace

import pytest

from diptych.core.errors import EvalError
from diptych.data.record_files import Pieces, Words
from diptych.evals.questions import Question, plain, read_answers, read_choices, read_questions


def _split(*records, images=(0,)):
    """Records as (text segments as (role, alternatives), meta)."""
    pieces = [Pieces(tuple(Words(t, None, role) for role, t in texts), images) for texts, _ in records]
    return SimpleNamespace(pieces=lambda i: pieces[i], meta=lambda i: records[i][1])


def test_questions_come_from_segments_and_from_meta():
    asked = {"question": "how many?", "answer": "2", "kind": "count"}
    split = _split(
        ((("question", ("what?", "where?")), ("answer", ("a cup", "here"))), {"kinds": ["thing", "place"]}),
        ((("caption", ("a cup",)),), {"questions": [asked, "broken"]}),
        ((("caption", ("a cup",)),), {}),
    )
    found = read_questions(split, [0, 1, 2])
    assert found.asked == [
        Question(0, "what?", "a cup", "thing"),
        Question(0, "where?", "here", "place"),
        Question(1, "how many?", "2", "count"),
    ]
    assert found == (found.asked, "meta and segments", 0, 0, 0)


def test_what_each_of_several_people_answered_is_kept():
    texts = (("question", ("what?", "where?")), ("answer", ("cup", "here")))
    people = [["cup"] * 9 + ["mug"], ["here"] * 10]
    meta = {"answers_of": people, "question_types": ["what", "where"], "kinds": ["other", "other"]}
    found = read_questions(_split((texts, meta), (texts, {"answers_of": people[:1]})), [0, 1]).asked
    assert [q.people for q in found] == [*map(tuple, people), (), ()], "lists of another length belong to others"
    assert [q.begins for q in found] == ["what", "where", "", ""]


def test_of_several_peoples_answers_the_most_common_is_right():
    texts = (("question", ("what?",)), ("answer", ("cup", "mug", "mug")))
    assert read_questions(_split((texts, {})), [0]).asked == [Question(0, "what?", "mug")]


def test_of_a_conversation_the_first_turn_is_judged_and_the_rest_counted():
    turn = (("question", ("what?",)), ("answer", ("cup",)))
    found = read_questions(_split(((*turn, *turn, *turn), {})), [0])
    assert (len(found.asked), found.later_turns) == (1, 2)
    with pytest.raises(EvalError, match="got 2 questions and 3 answers"):
        read_questions(_split(((("question", ("a", "b")), ("answer", ("1", "2", "3"))), {})), [0])


def test_all_words_before_the_answer_are_the_question():
    texts = (("", ("Question:",)), ("question", ("what?", "where?")), ("", ("Answer:",)), ("answer", ("cup", "here")))
    found = read_questions(_split((texts, {}), images=(1,)), [0])
    assert [q.question for q in found.asked] == ["Question: what? Answer:", "Question: where? Answer:"]
    assert found.moved_images == 1


def test_records_without_one_image_are_left_out_and_counted():
    texts = (("question", ("what?",)), ("answer", ("cup",)))
    for images in ((), (0, 0)):
        found = read_questions(_split((texts, {}), images=images), [0])
        assert (found.asked, found.other_images) == ([], 1)
    assert read_questions(_split(((("answer", ("cup",)),), {})), [0]).asked == [], "an answer to nothing"


def test_answers_are_compared_without_case_and_punctuation():
    assert plain("  A red,  Cup. ") == "a red, cup"
    assert plain("Yes!") == plain("yes")


def test_choices_come_from_a_file_the_folder_or_the_data(tmp_path):
    train, judged = [Question(0, "q", a) for a in ("no", "Yes")], [Question(0, "q", a) for a in ("no", "yes", "yes")]
    assert read_choices("", tmp_path, train, judged) == (("Yes", "no"), "the answers of the train split")
    assert read_choices("", None, [], judged) == (("no", "yes"), "the answers of the split itself")
    (tmp_path / "answers.txt").write_text("one\n\nTwo\none\n two \n")
    choices = read_choices("", tmp_path, train, judged)
    assert choices == (("one", "Two"), "answers.txt")
    assert choices.places == {"one": 0, "two": 1}
    assert read_choices(str(tmp_path / "answers.txt"), None, [], []).answers == ("one", "Two")
    assert read_answers(tmp_path / "answers.txt") == ("one", "Two")


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "one.txt").write_text("yes\nYES\n")
    with pytest.raises(EvalError, match=r"at least 2; got 1 from .*one.txt.*answers=free"):
        read_answers(tmp_path / "one.txt")
    with pytest.raises(EvalError, match=r"a text file with one a line; got .*none.txt"):
        read_choices(str(tmp_path / "none.txt"), None, [], [])
    with pytest.raises(EvalError, match="answers to choose from; got none"):
        read_choices("", None, [], [])
