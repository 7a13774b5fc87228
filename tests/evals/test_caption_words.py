import pytest

from diptych.evals.caption_words import caption_words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A red circle, above a Blue square.", "a red circle above a blue square"),
        ("The cat's toy isn't here -- don't look!", "the cat 's toy is n't here do n't look"),
        ('a man in a t-shirt (smiling) "hello"', "a man in a t-shirt smiling hello"),
        ("12:30 and 3.5 or 1,000", "12:30 and 3.5 or 1,000"),
        ("they’re two…", "they 're two"),
        ("  ", ""),
        ("cake & tea", "cake & tea"),
    ],
)
def test_words_are_those_that_cocos_scorer_counts(caption, words):
    assert " ".join(caption_words(caption)) == words
