import pytest

from diptych.core.errors import EvalError
from diptych.data.image_reader import ImageReader
from diptych.evals.pope import PopeConfig
from diptych.evals.questions import Question
from diptych.evals.scoring import Scoring
from diptych.evals.statements import weigh_statements
from tests.evals import fakes

DENIALS = {f"thing {i}": f"thing {500 + i} no" for i in range(20)}


def _asked(n):
    """Of each picture its own number (yes) and the next one's (no)."""
    return [Question(i, f"thing {j}", a) for i in range(n) for j, a in ((i, "yes"), ((i + 1) % n, "no"))]


@pytest.mark.parametrize("kind", [fakes.Embeds, fakes.Scores])
def test_what_is_there_scores_above_its_denial(kind):
    split, model = fakes.pairs(20), fakes.model(kind)
    split.images[3] = b"broken"
    reader = ImageReader(split, model.model.config.image_format, 8)
    by = Scoring("embeddings" if kind is fakes.Embeds else "score")
    found = weigh_statements(model, reader, _asked(20), DENIALS, by)
    assert (len(found.asked), len(found.said), len(set(found.hashes))) == (38, 38, 19)
    right = [s for q, s in zip(found.asked, found.said, strict=True) if q.answer == "yes"]
    assert right == ["yes"] * 19
    wrong = [s for q, s in zip(found.asked, found.said, strict=True) if q.answer == "no"]
    assert 2 < wrong.count("yes") < 17, "of two sentences that both are not true either may score higher"


def test_both_ways_to_score_agree():
    split = fakes.pairs(20)
    said = []
    for kind, by in ((fakes.Embeds, "embeddings"), (fakes.Scores, "score")):
        model = fakes.model(kind)
        reader = ImageReader(split, model.model.config.image_format, 8)
        said.append(weigh_statements(model, reader, _asked(20), DENIALS, Scoring(by)).said)
    assert said[0] == said[1]


class _Numbered(fakes.FakeTokenizer):
    """Texts without a number have that of their last word."""

    def encode_all(self, texts):
        return super().encode_all([f"{sum(map(ord, t.split()[-1]))} {t}" for t in texts])


def test_pope_asks_a_model_that_only_scores_by_statements_alone():
    split = fakes.FakeSplit(
        [fakes.picture(i) for i in range(12)],
        [()] * 12,
        [{"objects": [("ant", "bee", "elk")[i % 3]]} for i in range(12)],
    )
    model = fakes.model(fakes.Scores)
    model.tokenizer = _Numbered()
    assert "generate_text" in PopeConfig().unsuited(model, split)
    with pytest.raises(EvalError, match="generate_text"):
        PopeConfig().build().run(model, split)
    config = PopeConfig(asked_by="statements")
    assert config.unsuited(model, split) == ""
    assert config.unsuited(fakes.model(fakes.Mute), split) == "the model scores no pairs"
    result = config.build().run(model, split)
    assert result.settings["questions_from"] == "made: there is {a}"
    assert result.settings["scored_by"] == "score"
    assert result.metrics["unparsed_share"].value == 0
    assert result.metrics["accuracy"].chance == 0.5
    assert "blind_accuracy" not in result.metrics
