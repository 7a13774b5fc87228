"""VQA accuracy against what many people answered, as the official code computes it, and as others do.

Antol et al., "VQA: Visual Question Answering", arXiv:1505.00468, section 5: an answer is right to the degree
min(1, people who said it / 3), meant over all ways to leave one of the ten people out. What is *the same* answer is
where the programs differ:

official        The code of the VQA challenge. White space is trimmed; where all people said the same, answers must be
                equal letter by letter ("Yes" is wrong for "yes"); else both sides are respelled (`respelled`).
official_first  The same code as it first stood, and still does in LXMERT's and LAVIS's copies: the model's answer is
                always respelled, of people's answers only the punctuation, and only where they disagree.
lmms_eval       lmms-eval's: the model's answer is always respelled, commas, question marks and "'s" having been dealt
                with before; where people disagree both sides are respelled (once more).
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

NUMBERS = {
    name: str(n)
    for n, name in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
"""Signs that are taken out, in the order of the official list. The apostrophe, colon and full stop are not in it."""

MOST_STOPS = int(re.UNICODE)
"""The official code hands a flag to `re.sub` where the number of replacements belongs: 32 full stops go, no more."""

_STOP = re.compile(r"\.(?!\d)")  # the official look-behind is written as a look-ahead that always holds
_COMMA = {"official": re.compile(r"\d,\d"), "lmms_eval": re.compile(r"\d,+\d")}

_SPELLED = """
ain't aint|aren't arent|can't cant|could've couldve|couldn't couldnt|couldn't've couldn'tve couldnt've|didn't didnt|
doesn't doesnt|don't dont|hadn't hadnt|hadn't've hadnt've hadn'tve|hasn't hasnt|haven't havent|he'd hed|
he'd've hed've he'dve|he's hes|how'd howd|how'll howll|how's hows|isn't isnt|it'd itd|it'd've itd've it'dve|it'll itll|
ma'am maam|mightn't mightnt|mightn't've mightnt've mightn'tve|might've mightve|mustn't mustnt|must've mustve|
needn't neednt|not've notve|o'clock oclock|oughtn't oughtnt|'ow's'at ow's'at 'ows'at 'ow'sat|shan't shant|
she'd've shed've she'dve|should've shouldve|shouldn't shouldnt|shouldn't've shouldnt've shouldn'tve|
somebodyd somebody'd|somebody'd've somebodyd've somebody'dve|somebody'll somebodyll|somebody's somebodys|
someone'd someoned|someone'd've someoned've someone'dve|someone'll someonell|someone's someones|
something'd somethingd|something'd've somethingd've something'dve|something'll somethingll|that's thats|
there'd thered|there'd've thered've there'dve|there're therere|there's theres|they'd theyd|they'd've theyd've they'dve|
they'll theyll|they're theyre|they've theyve|'twas twas|wasn't wasnt|we'd've wed've we'dve|we've weve|weren't werent|
what'll whatll|what're whatre|what's whats|what've whatve|when's whens|where'd whered|where's wheres|where've whereve|
who'd whod|who'd've whod've who'dve|who'll wholl|who's whos|who've whove|why'll whyll|why're whyre|why's whys|
won't wont|would've wouldve|wouldn't wouldnt|wouldn't've wouldnt've wouldn'tve|y'all yall|y'all'll yall'll y'allll|
y'all'd've yall'd've y'alld've y'all'dve|you'd youd|you'd've youd've you'dve|you'll youll|you're youre|you've youve
"""
CONTRACTIONS = {wrong: right for right, *others in (group.split() for group in _SPELLED.split("|")) for wrong in others}
"""Words that lack an apostrophe, with the official code's spelling ("somebody'd" loses its own there). Its entries with
capital letters are left out: they can never be met, since words are lower-cased before."""


def official_accuracy(answer: str, people: Sequence[str]) -> float:
    """The accuracy (0 to 1) of an answer beside what people answered, as the VQA challenge's code has it."""
    said, others = _trimmed(answer), [_trimmed(p) for p in people]
    if len(set(others)) > 1:
        said, others = respelled(said), [respelled(p) for p in others]
    return _left_out(said, others)


def official_first_accuracy(answer: str, people: Sequence[str]) -> float:
    """The same as the code first stood: people's answers keep their articles, numbers in words and capital letters."""
    others = list(people)
    if len(set(others)) > 1:
        others = [_without_punctuation(p) for p in others]
    return _left_out(respelled(_trimmed(answer)), others)


def lmms_eval_accuracy(answer: str, people: Sequence[str]) -> float:
    """The same as lmms-eval has it, for the task vqav2."""
    said, others = _prepared(answer), [_trimmed(p) for p in people]
    if len(set(others)) > 1:
        said, others = respelled(said, "lmms_eval"), [respelled(p, "lmms_eval") for p in others]
    return float(statistics.mean(_each_left_out(said, others)))


ACCURACIES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "official": official_accuracy,
    "official_first": official_first_accuracy,
    "lmms_eval": lmms_eval_accuracy,
}


def chance_accuracies(convention: str, choices: Sequence[str], asked: Sequence[Sequence[str]]) -> list[float]:
    """What guessing reaches in each question: the mean accuracy of all `choices` beside what its people answered.

    Choices that one question's people cannot have meant count 0, so only those that are spelled as theirs are judged.
    """
    alike: dict[str, list[str]] = {}
    for choice in choices:
        for key in {_loose(choice), _loose(_prepared(choice))}:
            alike.setdefault(key, []).append(choice)
    found = []
    for people in asked:
        near = dict.fromkeys(c for p in dict.fromkeys(people) for c in alike.get(_loose(p), ()))
        found.append(sum(ACCURACIES[convention](c, people) for c in near) / len(choices))
    return found


@lru_cache(maxsize=1 << 16)
def respelled(answer: str, convention: Literal["official", "lmms_eval"] = "official") -> str:
    """An answer as the official code compares it: without punctuation and articles, numbers up to ten in figures,
    contractions with their apostrophe, lower-cased, single spaces."""
    words = _without_punctuation(answer, convention).lower().split()
    kept = [w for w in (NUMBERS.get(w, w) for w in words) if w not in ARTICLES]
    return " ".join(CONTRACTIONS.get(w, w) for w in kept)


@lru_cache(maxsize=1 << 16)
def _without_punctuation(answer: str, convention: Literal["official", "lmms_eval"] = "official") -> str:
    """A sign is dropped where it stands beside a space anywhere, or the answer has a comma between figures; else it
    leaves a space."""
    found = answer
    thousands = _COMMA[convention].search(answer) is not None
    for sign in PUNCTUATION:
        dropped = thousands or f"{sign} " in answer or f" {sign}" in answer
        found = found.replace(sign, "" if dropped else " ")
    return _STOP.sub("", found, count=MOST_STOPS)


def _trimmed(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _prepared(answer: str) -> str:
    """lmms-eval's own treatment of what a model says."""
    tokens = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return respelled(_trimmed(tokens), "lmms_eval")


def _loose(answer: str) -> str:
    """Equal for all answers that any convention could take for the same."""
    return re.sub(r"[\W_]+", "", respelled(_trimmed(answer)).lower())


def _left_out(said: str, others: Sequence[str]) -> float:
    each = _each_left_out(said, others)
    return float(sum(each)) / len(each)


def _each_left_out(said: str, others: Sequence[str]) -> list[float]:
    """The accuracy beside all people but one, for each of them."""
    matching = Counter(others)[said]
    return [min(1.0, float(matching - (other == said)) / 3) for other in others]
