import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.rouge.rouge import Rouge

from diptych.evals.bleu import bleu_counts, bleu_of
from diptych.evals.caption_words import caption_words
from diptych.evals.cider import Cider
from diptych.evals.rouge import longest_common, rouge_scores

WORDS = "a man the dog on red in of table's don't two t-shirt (big) plate 12:30 U.S. food, beach. grass wave?!"


def _sentences(images=60, references=4):
    """Captions and references of words that occur more or less often, some of them short or empty."""
    draws = random.Random(0)
    words = WORDS.split()
    weights = [1 / (i + 1) for i in range(len(words))]

    def said():
        return " ".join(draws.choices(words, weights, k=draws.choice([0, 1, 2, 3, 5, 8, 12])))

    truths = [[said() or "a man" for _ in range(draws.randint(1, references))] for _ in range(images)]
    mixed = [" ".join(t[0].split()[:4] + said().split()[:3]) for t in truths]
    return [m if i % 3 else said() for i, m in enumerate(mixed)], truths


def _as_coco(captions, references):
    """Words as ours, joined by spaces: what pycocoevalcap's scorers are given after its tokenizer."""
    told = {i: [" ".join(caption_words(t)) for t in texts] for i, texts in enumerate(references)}
    return told, {i: [" ".join(caption_words(c))] for i, c in enumerate(captions)}


CAPTIONS, REFERENCES = _sentences()


def test_rouge_equals_cocos_to_the_last_digit():
    mean, each = Rouge().compute_score(*_as_coco(CAPTIONS, REFERENCES))
    found = rouge_scores(CAPTIONS, REFERENCES)
    np.testing.assert_array_equal(found, each)
    assert found.mean() == mean
    assert (found == 0).any()
    assert len(set(found.tolist())) > 20


def test_cider_equals_cocos():
    """To the 13th digit: terms are added in another order. Their length counts pairs of words, not words, which is the
    same difference of lengths but beside sentences without words, that score 0 anyway."""
    mean, each = CocoCider().compute_score(*_as_coco(CAPTIONS, REFERENCES))
    found = Cider(REFERENCES).scores(CAPTIONS)
    np.testing.assert_allclose(found, each, rtol=1e-12, atol=1e-14)
    assert found.mean() == pytest.approx(mean, rel=1e-13)


def test_bleu_equals_cocos_but_for_what_keeps_it_from_dividing_by_zero(capsys):
    told, said = _as_coco(CAPTIONS, REFERENCES)
    theirs, _ = Bleu(4).compute_score(told, said, verbose=0)
    sums = bleu_counts(CAPTIONS, REFERENCES).sum(0, keepdims=True)
    assert sums[0, 3] > 0
    ours = [float(bleu_of(sums, n)[0]) for n in (1, 2, 3, 4)]
    assert ours == pytest.approx(theirs, rel=1e-9)
    matched, given, length, wanted = sums[0, :4], sums[0, 4:8], sums[0, 8], sums[0, 9]
    product, again = 1.0, []
    for n in range(4):  # COCO's scorer adds 1e-15 above and 1e-9 below each line
        product *= float(matched[n] + 1e-15) / (given[n] + 1e-9)
        again.append(product ** (1.0 / (n + 1)))
    ratio = (length + 1e-15) / (wanted + 1e-9)
    assert [b * (np.exp(1 - 1 / ratio) if ratio < 1 else 1) for b in again] == pytest.approx(theirs, rel=1e-15)


def test_by_hand():
    assert longest_common("abcbdab", "bdcaba") == 4
    assert longest_common("", "a") == 0
    # of three words two in order; the reference has four
    p, r = 2 / 3, 2 / 4
    assert rouge_scores(["a c x"], [["a b c d"]])[0] == pytest.approx(2.44 * p * r / (r + 1.44 * p))
    best = rouge_scores(["a b"], [["a", "a b c d e f g h"]])[0]
    assert best == pytest.approx(1), "the precision of one reference and the recall of another"
    assert rouge_scores(["", "", "a"], [[""], ["a"], ["b"]]).tolist() == [1, 0, 0]
