import pytest

from diptych.data.corpora.scenes import ScenesConfig
from diptych.evals.scene_facts import Claims, Said, is_scene, judge, parse_caption

SCENE = {
    "background": "grey",
    "objects": [
        {"shape": "circle", "colour": "red", "size": "small", "word": "", "boxes": [[1, 1, 5, 5]] * 2},
        {"shape": "square", "colour": "blue", "size": "large", "word": "", "boxes": [[9, 9, 20, 20]]},
        {"shape": "word", "colour": "black", "size": "", "word": "MAP", "boxes": [[1, 30, 9, 40]]},
    ],
    "relations": [[1, "above", 2], [2, "below", 1]],
}


def test_every_caption_of_the_corpus_is_read_and_true():
    corpus = ScenesConfig(size=300).build()
    whole = 0
    for record in corpus.records():
        assert is_scene(record.meta)
        texts = record.segments[1].texts
        for caption in texts:
            verdict = judge(caption.lower(), record.meta)
            assert verdict.parsed, caption
            assert verdict.true == verdict.claimed, caption
        whole += judge(texts[0], record.meta).all_right
    assert whole > 250  # where two of three things stand in a relation, the fullest caption still lists all three


def test_every_false_caption_of_the_corpus_is_found_out():
    for record in ScenesConfig(size=300).build().records():
        for fact, caption in record.meta["foils"].items():
            verdict = judge(caption, record.meta)
            assert verdict.parsed, caption
            wrong = {f for f in verdict.true if verdict.true[f] < verdict.claimed[f]}
            assert not verdict.all_right
            if fact in ("colour", "count", "relation", "order"):
                assert wrong & {{"order": "relation"}.get(fact, fact)}, (fact, caption)
            assert wrong, (fact, caption)


def test_claims_are_what_the_sentence_says():
    assert parse_caption("A small red circle to the left of two blue crosses on a white background.") == Claims(
        (Said("circle", "red", "small"), Said("cross", "blue", "", 2)), "to the left of", "white"
    )
    assert parse_caption("a picture of an orange ring, four pink boxes and the word MAP in black") is None
    assert parse_caption("a picture of an orange ring, four pink stars and the word MAP in black") == Claims(
        (Said("ring", "orange"), Said("star", "pink", "", 4), Said("word", "black", "", 1, "map"))
    )


@pytest.mark.parametrize(
    "caption",
    ["", "a red", "two red circle", "a red circles", "a red circle above", "red circle", "a cat", "no red circle"],
)
def test_what_is_no_sentence_of_the_corpus_is_not_read(caption):
    assert parse_caption(caption) is None
    verdict = judge(caption, SCENE, "two small red circles, a large blue square and the word MAP in black")
    assert (verdict.parsed, verdict.named, verdict.all_right) == (False, 0, False)
    assert verdict.claimed == {
        "object": 3, "colour": 3, "size": 2, "count": 2, "text": 1, "relation": 0, "background": 0
    }  # fmt: skip
    assert not any(verdict.true.values())


def _counts(caption):
    v = judge(caption, SCENE)
    return {f: (v.true[f], v.claimed[f]) for f in v.claimed if v.claimed[f]} | {"named": v.named}


def test_each_claim_is_judged_by_itself():
    assert _counts("three large red circles and a blue square") == {
        "object": (2, 2), "colour": (2, 2), "size": (0, 1), "count": (1, 2), "named": 2
    }  # fmt: skip
    assert _counts("two green circles on a white background") == {
        "object": (1, 1), "colour": (0, 1), "count": (1, 1), "background": (0, 1), "named": 0
    }  # fmt: skip
    assert _counts("a blue square above the word map in red") == {
        "object": (2, 2), "colour": (1, 2), "count": (1, 1), "text": (1, 1), "relation": (1, 1), "named": 2
    }  # fmt: skip
    assert _counts("a blue square below the word map in black")["relation"] == (0, 1)
    assert _counts("a pink square above the word map in black")["relation"] == (0, 1), "of another thing"
    assert _counts("a blue square and a blue square") == {
        "object": (1, 2), "colour": (1, 2), "count": (1, 2), "named": 1
    }, "one thing cannot be meant twice"  # fmt: skip


def test_all_right_wants_every_thing_and_no_false_claim():
    full = "two small red circles, a large blue square and the word map in black"
    assert judge(full + " on a grey background", SCENE).all_right
    assert not judge(full + " on a white background", SCENE).all_right
    assert not judge("two small red circles and a large blue square", SCENE).all_right


def test_other_records_are_no_scenes():
    assert not is_scene({"label": "cat"})
    assert not is_scene({"objects": 3, "relations": [], "background": "x"})
