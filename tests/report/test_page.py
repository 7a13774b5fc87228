from diptych.report.page import Html, Page, card, details, note, settings_table, table


def test_words_are_escaped_unless_they_are_html():
    assert "&lt;b&gt;" in table([["<b>"]])
    assert "<b>" in table([[Html("<b>")]])
    assert "&lt;" in note("<")
    assert "&lt;" in card("<", "1")
    assert "(none)" in settings_table({"x": []})


def test_empty_sections_are_left_out():
    page = Page("T")
    page.section("Empty", "")
    page.section("Full", details("more", "x"))
    html = page.render()
    assert "Empty" not in html
    assert '<a href="#s0">Full</a>' in html
    assert table([]) == details("x", "") == ""
