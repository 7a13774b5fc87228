import random

import pytest

from diptych.evals.vqa_accuracy import (
    ACCURACIES,
    CONTRACTIONS,
    MOST_STOPS,
    chance_accuracies,
    lmms_eval_accuracy,
    official_accuracy,
    official_first_accuracy,
    respelled,
)
from tests.reference.vqa_accuracy import strip_signs, strip_words, vqa_accuracy

TRICKY = [
    "yes", "Yes", "yes.", " yes ", "no", "No", "2", "two", "Two", "none", "0", "1,000", "1,,000", "1000", "1, 000",
    "10:30", "3.5", "3.", ".5", "a dog", "the dog", "dog", "an owl", "dont know", "don't know", "isnt", "whats that",
    "t-shirt", "t shirt", "t - shirt", "black and white", "black/white", "black / white", "red,white", "red, white",
    "u.s.a.", "u.s.a", "it's", "its", "man's", "men's room", "(left)", "left", "", " ", "a", "the", "yes\n", "yes\tno",
    "Im", "Id've", "somebody'd", "." * 40, "1.2.3.", "?", "what?", "x_y", "[b]", 'say "hi"', "ten", "eleven",
]  # fmt: skip


def _cases(count):
    draws = random.Random(0)
    letters = "ab1 ,.?!'-/_\"()\n\tA"
    for _ in range(count):
        pool = draws.sample(TRICKY, draws.randint(1, 4))
        pool += ["".join(draws.choices(letters, k=draws.randint(0, 9))) for _ in range(draws.randint(0, 2))]
        people = [draws.choice(pool) for _ in range(10)]
        yield draws.choice([*pool, draws.choice(TRICKY)]), people


@pytest.mark.parametrize("convention", list(ACCURACIES))
def test_equals_the_plain_twin_on_thousands_of_tricky_answers(convention):
    different = 0
    for said, people in _cases(1500):
        found = ACCURACIES[convention](said, people)
        slow = vqa_accuracy(said, people, convention)
        if convention == "lmms_eval":  # it takes the mean by exact fractions: the last digit may differ
            assert found == pytest.approx(slow, abs=1e-15), (said, people)
        else:
            assert found == slow, (said, people)
        different += 0 < found < 1
    assert different > 100, "cases in which people agree in part are the ones that tell"


def test_spelling_equals_the_plain_twin():
    draws = random.Random(1)
    for _ in range(4000):
        text = "".join(draws.choices("ab12 ,.?!'-/_\"()", k=draws.randint(0, 12)))
        for convention, comma in (("official", r"(\d)(\,)(\d)"), ("lmms_eval", r"(?<=\d)(\,)+(?=\d)")):
            assert respelled(text, convention) == strip_words(strip_signs(text, comma)), text


@pytest.mark.parametrize(
    ("said", "same", "degree"),
    [("yes", 10, 1), ("yes", 4, 1), ("yes", 3, 0.9), ("yes", 2, 0.6), ("yes", 1, 0.3), ("yes", 0, 0)],
)
def test_by_hand(said, same, degree):
    people = ["yes"] * same + ["no"] * (10 - same)
    for accuracy in ACCURACIES.values():
        assert accuracy(said, people) == pytest.approx(degree)


def test_the_quirks_of_the_official_code():
    agreed = ["yes"] * 10
    assert official_accuracy("Yes", agreed) == 0, "where people agree, nothing is respelled"
    assert official_accuracy(" yes\n", agreed) == 1, "white space is trimmed in any case"
    assert official_first_accuracy("Yes.", agreed) == lmms_eval_accuracy("Yes.", agreed) == 1
    disagreed = ["yes"] * 9 + ["no"]
    assert official_accuracy("Yes.", disagreed) == 1
    assert official_first_accuracy("2", ["two"] * 9 + ["no"]) == 0, "it left people's numbers in words"
    assert official_accuracy("2", ["two"] * 9 + ["no"]) == 1
    assert respelled("3.") == "3", "the look-behind never looks behind"
    assert respelled("3.5") == "3.5"
    assert respelled("." * 40) == "." * (40 - MOST_STOPS)
    assert respelled("t-shirt") == "t shirt"
    assert respelled("t- shirt") == "t shirt", "a sign beside a space is dropped"
    assert respelled("1,000 t-shirts") == "1000 tshirts", "and every sign is, where figures have a comma"
    assert respelled("a dog, the cat") == "dog cat"
    assert (CONTRACTIONS["somebody'd"], CONTRACTIONS["weve"]) == ("somebodyd", "we've")
    assert len(CONTRACTIONS) == 114


def test_what_guessing_reaches():
    people = [["yes"] * 10, ["yes"] * 5 + ["no"] * 5, ["2"] * 9 + ["a dog"]]
    choices = ["yes", "no", "two", "dog", "Yes"]
    draws = [people for _, people in _cases(60)]
    for convention, accuracy in ACCURACIES.items():
        for among, asked in ((choices, people), (TRICKY, draws)):
            slow = [sum(accuracy(c, p) for c in among) / len(among) for p in asked]
            assert chance_accuracies(convention, among, asked) == pytest.approx(slow), convention
