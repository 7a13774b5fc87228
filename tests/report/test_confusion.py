from diptych.report.confusion import confusion_section


def test_small_matrices_have_numbers_and_large_ones_are_pictures():
    small = confusion_section({"confusion": {"classes": ["a", "b"], "matrix": [[3, 1], [0, 0]]}})
    assert ">75</td>" in small
    assert "Most often taken" in small
    many = [str(i) for i in range(30)]
    large = confusion_section({"confusion": {"classes": many, "matrix": [[1] * 30] * 30}})
    assert "data:image/png" in large
    assert confusion_section({}) == ""
