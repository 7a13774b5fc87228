import json

from diptych.report.run_page import run_page
from diptych.report.written import written_section
from tests.report import fake_run

TEST = {"difference": 0.25, "low": 0.2, "high": 0.3, "p_value": 0.0001, "verdict": "better"}
NONE = {"difference": 0.0, "low": -0.1, "high": 0.1, "p_value": 1.0, "verdict": "indistinguishable"}


def test_answers_are_shown_with_what_needs_no_picture():
    one = {
        "thumb": "abc",
        "question": "what <is> it?",
        "answer": "cup",
        "said": "mug",
        "confidence": 0.9,
        "right": False,
    }
    page = written_section(
        {
            "against": {"blind": TEST, "question_only": NONE},
            "by_question": [
                {
                    "name": "colour",
                    "n": 1200,
                    "value": 0.9,
                    "low": 0.8,
                    "high": 0.95,
                    "blind": 0.3,
                    "question_only": 0.2,
                }
            ],
            "answers_right": [{**one, "right": True, "confidence": None, "said": "cup"}],
            "answers_wrong": [one] * 14,
            "confusion": {"classes": ["cup", "mug"], "matrix": [[1, 14], [0, 0]]},
            "top_confusions": [{"class": "cup", "predicted": "mug", "count": 14}],
        }
    )
    for words in (
        "<b>better than</b> those that it gives to blank images: +25.0 points [+20.0, +30.0], p = 0.0001",
        "<b>not to be told apart from</b> the question-only baseline",
        "colour (1,200)",
        '<th class="num">question only</th>',
        "what &lt;is&gt; it? cup",
        "what &lt;is&gt; it? mug (90%), but it is cup",
        "2 more",
        "<h3>Confusion</h3>",
        "Most often taken for another",
    ):
        assert words in page, words


def test_captions_are_shown_with_their_facts():
    row = {"thumb": "abc", "caption": "a <red> cup", "references": ["a cup", "a mug"], "cider": 1.234, "exact": True}
    page = written_section(
        {
            "captions_some": [row] * 14,
            "captions_worst": [{**row, "caption": "", "exact": False}],
            "blank_caption": "a cup",
            "against_blind": {"cider": TEST},
            "facts_against_blind": {"all_facts_accuracy": NONE},
            "facts": [{"fact": "colour", "claimed": 1200, "true": 900, "chance": 0.1, "blind": 0.2}],
            "unparsed": {"count": 3, "first": ["red red <red>"]},
        }
    )
    for words in (
        "Of a blank image it says: a cup",
        "CIDEr: <b>better than</b> the same model shown blank images: +0.25 [+0.20, +0.30]",
        "all facts accuracy: <b>not to be told apart from</b>",
        "a &lt;red&gt; cup",
        "CIDEr 1.23, word for word",
        "(nothing)",
        "2 more",
        "75.0%",
        "1,200",
        "3 captions that state no fact",
        "red red &lt;red&gt;",
    ):
        assert words in page, words


def test_other_results_have_no_such_part():
    assert written_section({}) == ""
    assert written_section({"confusion": {"classes": ["a", "b"], "matrix": [[1, 0], [0, 1]]}, "per_class": []}) == ""


def test_an_eval_that_leads_with_no_share_shows_it_first(tmp_path):
    run = fake_run.write(tmp_path / "run")
    metrics = {"cider": fake_run.estimate(1.2345, 0.1), "exact_match": fake_run.estimate(0.25, 0.0)}
    row = {
        "thumb": fake_run.thumb((9, 9, 9)),
        "caption": "a cup",
        "references": ["a mug"],
        "cider": 1.0,
        "exact": False,
    }
    result = {
        "task": "captioning",
        "data": "x",
        "split": "val",
        "metrics": metrics,
        "artifacts": {"captions_some": [row]},
    }
    (run / "evals" / "captioning-val.json").write_text(json.dumps(result))
    html = run_page(run)
    glance = html[html.index("<h2>At a glance") : html.index("<h2>The doctor")]
    assert "CIDEr (val)" in glance
    assert "exact match (val)" in glance
    assert html.count("<td>CIDEr</td>") == 2, "open above the chart, and in the whole table"
    assert "Captions, as they come" in html
