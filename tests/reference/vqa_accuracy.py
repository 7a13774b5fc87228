"""VQA accuracy step by step, from the definition of the challenge and what is known of its code: slow and plain.

Nothing is shared with `diptych.evals.vqa_accuracy` but the table of contractions.
"""

import re

from diptych.evals.vqa_accuracy import CONTRACTIONS

FIGURES = {
    "none": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10,
}  # fmt: skip
SIGNS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]


def strip_signs(text, comma=r"(\d)(\,)(\d)"):
    out = text
    for sign in SIGNS:
        beside_space = any(pair in text for pair in (sign + " ", " " + sign))
        out = out.replace(sign, "" if beside_space or re.search(comma, text) else " ")
    # the pattern and the misplaced flag as they are known: a look-ahead in place of a look-behind, a flag as a count
    return re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=int(re.UNICODE))


def strip_words(text):
    kept = []
    for word in text.lower().split():
        figure = str(FIGURES[word]) if word in FIGURES else word
        if figure in ("a", "an", "the"):
            continue
        kept.append(CONTRACTIONS.get(figure, figure))
    return " ".join(kept)


def trim(text):
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(answer, people, convention):
    if convention == "official_first":
        said, others = strip_words(strip_signs(trim(answer))), list(people)
        if len(set(others)) > 1:
            others = [strip_signs(p) for p in others]
    else:
        comma = r"(\d)(\,)(\d)" if convention == "official" else r"(?<=\d)(\,)+(?=\d)"
        said, others = trim(answer), [trim(p) for p in people]
        if convention == "lmms_eval":
            said = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
            said = strip_words(strip_signs(trim(said), comma))
        if len(set(others)) > 1:
            said = strip_words(strip_signs(said, comma))
            others = [strip_words(strip_signs(p, comma)) for p in others]
    degrees = []
    for left_out in range(len(others)):
        same = [o for i, o in enumerate(others) if i != left_out and o == said]
        degrees.append(min(1, float(len(same)) / 3))
    return float(sum(degrees)) / len(degrees)
