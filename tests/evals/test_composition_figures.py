from diptych.evals.composition import CompositionConfig
from tests.evals import fakes
from tests.evals.two_captions import right_and_wrong


def test_every_test_stands_with_its_chance_and_beside_those_that_do_not_look():
    split = right_and_wrong(40, 3, tests=2)
    result = CompositionConfig(pictures=5).build().run(fakes.model(perfect=False), split, True)
    by_test, table, worst = result.figures
    assert [r.name for r in by_test.rows] == ["mean over tests", "test 0", "test 1"]
    assert {r.chance for r in by_test.rows} == {0.25}
    assert table.head[:4] == ("test", "n", "with the image", "before a blank image")
    assert [len(row) for row in table.rows] == [len(table.head)] * 2
    assert "No test is solvable blind" in table.words
    assert "the right captions of the other items" in table.words
    assert len(worst.pictures) == 5
    assert [p.caption.split(":")[0] for p in worst.pictures[:4]] == ["test 0", "test 1"] * 2
    for figure in result.figures:
        assert "<h3>" in figure.html()


def test_without_pictures_there_is_no_sheet():
    result = CompositionConfig(pictures=0).build().run(fakes.model(), right_and_wrong(10), True)
    assert len(result.figures) == 2
