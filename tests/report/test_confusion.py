from diptych.report.confusion import confusion_section


def test_small_matrices_have_numbers_and_large_ones_are_pictures():
    small = confusion_section({"confusion": {"classes": ["a", "b"], "matrix": [[3, 1], [0, 0]]}})
    assert ">75</td>" in small
    assert "Most often taken" in small
    many = [str(i) for i in range(30)]
    large = confusion_section({"confusion": {"classes": many, "matrix": [[1] * 30] * 30}})
    assert "data:image/png" in large
    assert confusion_section({}) == ""


def test_many_classes_have_no_matrix_but_all_the_rest():
    page = confusion_section(
        {
            "confusion": {},
            "per_class": [{"name": "<a>", "n": 3, "recall": 0.5, "low": 0.1, "high": 0.9, "chance": 0.01}],
            "prompts": [{"name": "ensemble", "value": 0.3, "low": 0.2, "high": 0.4, "chance": 0.01}],
            "top_confusions": [{"class": "cat", "predicted": "lynx", "count": 1234}],
        }
    )
    for words in ("Recall by class", "&lt;a&gt;", "Ensemble of prompts", "lynx", "1,234"):
        assert words in page
    assert "<h3>Confusion</h3>" not in page


def test_mistakes_and_what_the_ensemble_is_worth():
    test = {"difference": -0.031, "low": -0.05, "high": -0.011, "p_value": 0.002, "verdict": "worse"}
    page = confusion_section(
        {
            "prompts": [{"name": "ensemble", "value": 0.3, "low": 0.2, "high": 0.4, "chance": 0.01}],
            "ensemble_against": {"bare_name": test},
            "mistakes": [
                {"thumb": "abc", "class": "<cat>", "predicted": "dog", "confidence": 0.973},
                {"thumb": "abc", "class": "cow", "predicted": "dog", "confidence": None},
            ],
        }
    )
    assert "<b>does worse than</b> the bare name: -3.1 points [-5.0, -1.1], p = 0.002" in page
    assert "dog (97%), but it is &lt;cat&gt;" in page
    assert "dog, but it is cow" in page
