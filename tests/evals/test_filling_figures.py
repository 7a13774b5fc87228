import base64

import torch

from diptych.data.decode import decode_image
from diptych.evals.filling_figures import GAP, GREY, SIDE, hidden_cells, panels
from diptych.evals.filling_in import FillingInConfig
from tests.evals import fakes, fill_models


def _figures(kind, n=40, **settings):
    result = FillingInConfig(**settings).build().run(fill_models.model(kind), fakes.pairs(n))
    return {f.title: f for f in result.figures}


def test_hidden_cells_are_grey_and_the_others_as_they_were():
    image = torch.randint(0, 100, (1, 3, 8, 8), dtype=torch.uint8)
    found = hidden_cells(image, torch.tensor([[False, True, False, False]]), (2, 2))
    assert (found[0, :, :4, 4:] == GREY).all()
    assert torch.equal(found[0, :, 4:], image[0, :, 4:])
    assert torch.equal(found[0, :, :4, :4], image[0, :, :4, :4])


def test_panels_stand_side_by_side():
    colours = [torch.full((3, 8, 8), c, dtype=torch.uint8) for c in (10, 200)]
    found = decode_image(base64.b64decode(panels(colours)))
    assert found.shape == (3, SIDE, 2 * SIDE + GAP)
    assert int(found[0, 0, 0]) == 10
    assert int(found[0, 0, -1]) == 200


def test_images_are_shown_rebuilt_where_the_model_can():
    wide = {}
    for kind in (fill_models.Rebuilds, fill_models.Fills):
        figure = _figures(kind)["Images with hidden cells"]
        assert len(figure.pictures) == 12
        wide[kind] = decode_image(base64.b64decode(figure.pictures[0].image)).shape[2]
        assert ("rebuilt" in figure.words) == (kind is fill_models.Rebuilds)
        assert "thing" in figure.pictures[0].caption
    assert wide[fill_models.Rebuilds] == 4 * SIDE + 3 * GAP
    assert wide[fill_models.Fills] == 2 * SIDE + GAP


def test_texts_show_what_was_hidden():
    rows = _figures(fill_models.Fills)["Texts with hidden words"].rows
    assert len(rows) == 12
    assert all(row[0].count("[") == row[0].count("]") == 1 for row in rows)
    assert rows[0][2:] == ("1.00", "0.50")


def test_without_pictures_there_are_numbers_only():
    assert list(_figures(fill_models.Fills, 10, pictures=0)) == [
        "The right other side is preferred",
        "Errors of what was hidden",
        "What the other side is worth",
    ]
