"""CHAIR's reading of a caption, word by word as its authors describe it, on words that are in the singular already."""

from diptych.evals.object_words import DOUBLE, MEANT


def mentions(words, synonyms):
    pairs = {p: p for p in DOUBLE} | MEANT
    joined, i = [], 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        if pair in pairs:
            joined.append(pairs[pair])
            i += 2
        else:
            joined.append(words[i])
            i += 1
    if "toilet" in joined and "seat" in joined:
        joined = [w for w in joined if w != "seat"]
    return [synonyms[w] for w in joined if w in synonyms]


def chair(captions, truths, synonyms):
    """(CHAIRi, CHAIRs) of lists of words and sets of objects."""
    said = wrong = sentences = 0
    for words, truth in zip(captions, truths, strict=True):
        named = mentions(words, synonyms)
        false = [n for n in named if n not in truth]
        said, wrong, sentences = said + len(named), wrong + len(false), sentences + bool(false)
    return wrong / said, sentences / len(captions)
