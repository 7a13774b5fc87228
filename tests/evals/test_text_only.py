from collections import Counter

import numpy as np
import pytest

from diptych.evals.text_only import ALL, Choice, Counts, LikelyWords, TellingWords, telling_features


def _share(baseline, choices):
    found = []
    for n in range(len(choices)):
        first, *others = baseline.scores(n)
        tied = [abs(first - o) < 1e-9 for o in others]
        found.append(0.0 if any(o > first + 1e-9 for o in others) else 1 / (1 + sum(tied)))
    return float(np.mean(found))


def _tossed(n, seed=0):
    """Two captions of a few words each, of which a coin says which is right."""
    rng = np.random.default_rng(seed)
    words = ["red", "green", "dog", "cat", "runs", "sleeps"]
    pairs = [tuple(" ".join(rng.choice(words, 3)) for _ in range(2)) for _ in range(n)]
    return [Choice(texts, i) for i, texts in enumerate(pairs)]


def test_counts_leave_out_what_is_about_the_same_or_between_the_same_captions():
    choices = [Choice(("a", "b"), 0), Choice(("b", "a"), 1), Choice(("a", "c"), 0), Choice(("a", "d"), 2)]
    counts = Counts(choices)
    for i, choice in enumerate(choices):
        counts.add(i, [choice.texts[0]])
    assert counts.all == Counter({"a": 3, "b": 1})
    assert [counts.without(0)(f) for f in "abz"] == [1, 0, 0]  # not itself, not 1 (same captions), not 2 (same image)
    assert [counts.without(3)(f) for f in "ab"] == [2, 1]


def test_captions_without_a_tell_leave_both_at_chance():
    choices = _tossed(600)
    assert _share(TellingWords(choices), choices) == pytest.approx(0.5, abs=0.05)
    assert _share(LikelyWords(choices), choices) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("tell", ["a word", "the order", "letters", "the length"])
def test_planted_tells_are_found(tell):
    spoil = {
        "a word": lambda t: t.replace(" ", " not ", 1),
        "the order": lambda t: " ".join(sorted(t.split(), key=lambda w: (w != "runs", w))),
        "letters": lambda t: t.replace("e", "qx"),
        "the length": lambda t: f"{t} {t.split()[0]}",
    }[tell]
    choices = [Choice((right, spoil(right)), i) for i, ((right, _), _) in enumerate(_tossed(300))]
    choices = [c for c in choices if c.texts[0] != c.texts[1]]
    assert _share(TellingWords(choices), choices) > 0.8


def test_likely_words_know_the_order_of_right_captions():
    rng = np.random.default_rng(1)
    animals, deeds = [f"animal{i}" for i in range(8)], [f"does{i}" for i in range(8)]
    choices = []
    for i in range(200):
        a, d = rng.choice(animals), rng.choice(deeds)
        choices.append(Choice((f"the {a} {d}", f"{d} the {a}"), i))
    assert _share(LikelyWords(choices), choices) == 1
    given = LikelyWords(choices, ["the animal0 does0", "the animal3 does1"])
    assert given.given
    assert _share(given, choices) > 0.95


def test_sets_of_twins_are_at_one_half_exactly():
    choices = []
    for i, (texts, _) in enumerate(_tossed(60)):
        if texts[0] != texts[1]:
            choices += [Choice(texts, i), Choice(texts[::-1], i)]
    assert _share(TellingWords(choices), choices) == 0.5
    assert _share(LikelyWords(choices), choices) == 0.5
    assert _share(LikelyWords(choices, ["red dog runs"] * 9), choices) == 0.5


def test_features_by_hand():
    a, b = telling_features(["A cat.", "a cat sat"])
    assert {ALL, "cat", ("a", "cat"), ("cat", ">"), ("letters", "cat"), ("shortest", True), ("longest", False)} <= a
    assert {("cat", "sat"), ("longest", True)} <= b
    (same, _) = telling_features(["ab", "ba"])
    assert not any(isinstance(f, tuple) and f[0] in ("longest", "shortest") for f in same)
