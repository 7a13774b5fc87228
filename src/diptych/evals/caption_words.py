"""A sentence as the words that caption scores count, spelled as COCO's scorer spells them before it counts.

COCO's captions pass through the tokenizer of the Penn Treebank (Stanford's, a Java program) and lose what stands in a
list of punctuation. What follows are rules of our own that give the same words, but for what
`docs/reference/evals-generated-text.md` lists; the test holds what the program itself says of tricky sentences.
"""

import re

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""What COCO's scorer drops. Brackets are in its list in capital letters, but the words are lower-cased before: they
stay, as "-lrb-" and the like, and are counted as words."""

_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))
_PARTS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
_RESPELLED = str.maketrans({"‘": "`", "…": " ... ", "–": " -- ", "—": " -- ", "“": '"', "”": '"'} | {
    "€": "$", "£": "#", "½": "1/2", "¼": "1/4", "¾": "3/4"
})  # fmt: skip
_SHORT = [
    "mr",
    "mrs",
    "ms",
    "dr",
    "st",
    "ave",
    "blvd",
    "rd",
    "mt",
    "ft",
    "jr",
    "sr",
    "vs",
    "etc",
    "inc",
    "co",
    "corp",
    "ltd",
    "dept",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "prof",
    "gen",
    "sen",
    "rep",
    "gov",
    "capt",
    "lt",
    "col",
    "sgt",
    "maj",
    "rev",
    "hon",
    "pres",
    "bldg",
    "sq",
    "ct",
    "mon",
    "tue",
    "tues",
    "wed",
    "thu",
    "thurs",
    "fri",
    "est",
    "ext",
    "tel",
    "bros",
    "messrs",
    "mme",
    "mlle",
    "adm",
    "cmdr",
    "brig",
    "cpl",
    "pvt",
    "supt",
    "atty",
    "asst",
    "assn",
    "univ",
    "natl",
    "intl",
    "mfg",
    "ste",
    "esq",
    "ph",
    "calif",
    "fla",
    "mich",
    "va",
    "ariz",
    "colo",
    "conn",
    "ind",
    "kan",
    "ky",
    "md",
    "minn",
    "mo",
    "mont",
    "neb",
    "nev",
    "okla",
    "penn",
    "tenn",
    "wis",
    "wyo",
    "al",
    "cf",
    "cos",
]
"""Abbreviations whose full stop belongs to the word."""
_STATES = ("Ark", "Del", "Ill", "La", "Mass", "Miss", "Ore", "Pa", "Tex", "Wash")
"""And those that are words too, unless they begin with a capital letter."""

_PIECES = re.compile(
    rf"""
    https?://\S+ | [\w.+-]+@[\w-]+\.[\w.-]+                     # addresses
    | </?\w+> | [@\#][^\W\d]\w*                                 # tags, names
    | (?-i:[A-Z]+(?:&[A-Z]+)+)                                  # AT&T, but not at&t
    | (?-i:(?:{"|".join(_STATES)})\.)(?!\w)
    | (?:{"|".join(_SHORT)})\.(?!\w) | (?:no|fig|op|pp|ca)\.(?=\s*\d)
    | ph\.d\.(?!\w) | (?<!\w)[^\W\d_](?:\.[^\W\d_])*\.(?!\w)    # u.s.  p.m.  j.
    | n['’]t(?!\w) | ['’](?:s|m|d|ll|re|ve|t)(?!\w)             # clitics, which stand by themselves by now
    | ['’](?:n['’]|n(?!\w)|\d0s|em\b|til\b|cause\b)
    | (?:[ldosc]|qu)['’][^\W\d_]\w* | ma['’]am\b | \by['’](?=all\b)
    | (?<![\w)])[+-]\d+(?:[.,]\d+)*                             # -5
    | \d+(?:[.,:]\d+)+(?=[^\W\d_]|\b)                           # 3.5  1,000  12:30
    | \w+(?:/\w+)+                                              # and/or  1/2
    | c\+\+ | \w+(?:[-.]\w+)*                                   # t-shirt  u.s
    | [?!]{{2,}} | [^\w\s\ufe0f\u200d\U00010000-\U0001ffff]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NOT = re.compile(r"(?<=\w)n['’]t\b", re.IGNORECASE)
_CLITIC = re.compile(r"(?<=\w)['’](s|m|d|ll|re|ve)\b", re.IGNORECASE)
_AND = re.compile(r"(?<=\w)['’]n['’](?=\w)", re.IGNORECASE)
_IT = re.compile(r"(?<!\w)['’]t(was|is)\b", re.IGNORECASE)


def caption_words(caption: str) -> tuple[str, ...]:
    """The words of a caption, lower-cased, without punctuation."""
    text = _CLITIC.sub(r" '\1", _NOT.sub(" n't", caption.translate(_RESPELLED)))
    text = _IT.sub(r"'t \1", _AND.sub(" 'n' ", text))
    words: list[str] = []
    for piece in _PIECES.findall(text):
        word = _BRACKETS.get(piece, piece.lower())
        words += _PARTS.get(word, (word,))
    return tuple(w for w in words if w not in PUNCTUATION and w not in '"’')
