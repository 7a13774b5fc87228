"""The page of what evals found holds every result and figure, names what was lost, and escapes what it was told."""

import pytest

from diptych.core.errors import DataError
from diptych.evals.eval import Estimate, EvalResult
from diptych.evals.find import save
from diptych.report.eval_page import eval_page
from diptych.report.figures import Words


def _result(task, data="sets/<things>", **settings):
    return EvalResult(
        task=task,
        data=data,
        split="test",
        metrics={"acc_at_1": Estimate(value=0.5, low=0.4, high=0.6, chance=0.1, n=40)},
        settings=settings,
        figures=(Words(title="Hardest", head=("uid",), rows=(("<b>x</b>",),)),),
    )


def test_every_result_has_its_section(tmp_path):
    lost = {"count": 2, "first": {"uid1": "cut short", "uid2": "empty"}}
    save(_result("zero_shot", broken_images=lost), tmp_path)
    save(_result("knn", label="k<3"), tmp_path)
    page = eval_page(tmp_path)
    assert page.count("<section") == 4
    assert "zero shot: 2 images were left out, the first uid1, uid2." in page
    assert "knn (k&lt;3)" in page
    assert page.count("<h3>Hardest</h3>") == 2
    assert "<b>x</b>" not in page
    assert "<things>" not in page
    assert page.count("40.0% to 60.0%, chance 10.00%") == 2


def test_results_on_several_datasets_are_told_apart(tmp_path):
    save(_result("zero_shot", "sets/a"), tmp_path)
    save(_result("zero_shot", "sets/b"), tmp_path)
    page = eval_page(tmp_path)
    assert "zero shot: a, test" in page
    assert "zero shot: b, test" in page


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(DataError, match="Run diptych eval first"):
        eval_page(tmp_path)


def test_a_checkpoints_result_says_which_one(tmp_path):
    save(_result("zero_shot"), tmp_path)
    save(_result("zero_shot"), tmp_path / "checkpoints" / "000000047616")
    page = eval_page(tmp_path)
    assert ">zero shot, checkpoint 47,616<" in page
    assert page.count("zero shot, checkpoint") >= 1
