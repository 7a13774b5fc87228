"""Figures survive JSON and draw what they hold, with what they were told escaped."""

import base64
import json

import pytest

from diptych.core.config import to_dict
from diptych.data.decode import encode_png
from diptych.report import figures as f


def _one_of_each():
    import torch

    image = base64.b64encode(encode_png(torch.zeros(3, 4, 4, dtype=torch.uint8))).decode()
    return [
        f.Lines(title="<Curve>", x=(1, 2), series={"a": (0.1, 0.2)}, x_label="x", y_label="y", references={"low": 0.1}),
        f.Intervals(title="<Groups>", rows=(f.Interval(name="g<", value=0.5, low=0.4, high=0.6, chance=0.5, n=3),)),
        f.Matrix(title="<Small>", values=((1.0, 2.0),), row_names=("r<",), column_names=("a", "b")),
        f.Matrix(title="<Wide>", values=((1.0,) * 30,), row_names=("r",), column_names=("c",) * 30),
        f.Histogram(title="<Counts>", starts=(0, 1), counts=(3, 4), x_label="bin"),
        f.Words(title="<Table>", head=("a", "b"), rows=tuple((f"<{i}>", "2") for i in range(30)), numeric=(1,)),
        f.Pictures(
            title="<Sheet>", pictures=(f.Picture(image=image, caption="<c>", detail="d", verdict="wrong"),) * 14
        ),
        f.Reliability(title="<Trust>", bins=(f.Bin(n=3, confidence=0.5, accuracy=0.4),)),
    ]


@pytest.mark.parametrize("figure", _one_of_each(), ids=lambda x: type(x).__name__)
def test_a_figure_survives_json_and_is_escaped(figure):
    html = f.figure_html(json.loads(json.dumps(to_dict(figure))))
    assert html == figure.html()
    assert f"<h3>&lt;{figure.title[1:-1]}&gt;</h3>" in html
    assert "g<" not in html
    assert "<c>" not in html
    assert "<3>" not in html


def test_what_does_not_fit_is_behind_a_click():
    long = _one_of_each()[5].html()
    assert "10 more" in long
    assert long.index("&lt;19&gt;") < long.index("<details>") < long.index("&lt;20&gt;")
