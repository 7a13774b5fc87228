from diptych.evals.question_only import Guess, QuestionOnly
from diptych.evals.questions import Question

TRAIN = [
    *[Question(0, "Is there a red shape?", a) for a in ("no", "no", "Yes")],
    *[Question(0, "what colour is the circle?", a) for a in ("red", "blue", "blue")],
    *[Question(0, "which shape is it?", "circle")] * 2,
]


def test_the_same_question_gets_its_most_common_answer():
    known = QuestionOnly(TRAIN)
    assert known.guess("is there a  red shape?") == Guess("no", "same question")
    assert known.guess("what colour is the circle?") == Guess("blue", "same question")


def test_another_gets_that_of_the_question_most_like_it():
    known = QuestionOnly(TRAIN)
    assert known.guess("is there a green shape?") == Guess("no", "similar question")
    assert known.guess("what colour is the square?") == Guess("blue", "similar question")


def test_one_like_none_gets_the_most_common_answer_of_all():
    even = [*TRAIN, Question(0, "which shape is that?", "circle")]
    assert QuestionOnly(even).guess("why?") == Guess("circle", "most common answer")


def test_ties_are_broken_by_what_is_more_common_of_all_then_by_letters():
    train = [Question(0, "a?", "x"), Question(0, "a?", "y"), Question(0, "b?", "y")]
    assert QuestionOnly(train).guess("a?").answer == "y"
    assert QuestionOnly(train[:2]).guess("a?").answer == "x"
