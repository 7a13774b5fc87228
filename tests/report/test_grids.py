from diptych.report.grids import contact_sheet, image_to_text, picture, text_to_image


def test_pictures_say_what_they_are():
    assert "data:image/png" in picture("iVBORabc")
    assert "data:image/jpeg" in picture("/9j/abc", "a & b")
    assert "no picture" in picture("")
    assert "a &amp; b" in contact_sheet([{"thumb": "/9j/", "caption": "a & b"}])


def test_retrievals_mark_what_is_right():
    row = {
        "query": "q",
        "rank": 3,
        "target": {"thumb": "/9j/"},
        "hits": [{"thumb": "/9j/", "score": 0.5, "correct": True}],
    }
    assert "picture right" in text_to_image([row])
    assert "rank 3" in text_to_image([row])
    text = image_to_text(
        [
            {
                "query": {"thumb": "/9j/", "caption": "c"},
                "rank": 1,
                "hits": [{"caption": "<x>", "score": 1, "correct": False}],
            }
        ]
    )
    assert '<li class="wrong">&lt;x&gt;' in text
    assert image_to_text([]) == ""
