from xml.etree import ElementTree

from diptych.report.log_curves import Curve, log_curves

NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_it_is_whole_xml_with_a_line_and_a_band_a_curve():
    curves = [
        Curve("slow & steady", [100, 1000, 10_000], [0.0, 0.1, 0.2], [0.0, 0.05, 0.1], [0.1, 0.2, 0.3]),
        Curve("fast", [100, 1000, 10_000], [0.1, 0.3, 0.5], [0.1, 0.3, 0.5], [0.1, 0.3, 0.5]),
    ]
    root = ElementTree.fromstring(log_curves(curves, "Figure", "samples", "accuracy", chance=0.05))
    assert len(root.findall(f"{NAMESPACE}polygon")) == 2
    lines = root.findall(f"{NAMESPACE}polyline")
    assert len(lines) == 3  # and chance
    points = [tuple(map(float, p.split(","))) for p in lines[-1].get("points").split()]
    assert points[1][0] - points[0][0] == points[2][0] - points[1][0]  # decades are equally wide
    assert points[0][1] > points[1][1] > points[2][1]
    words = [t.text for t in root.findall(f"{NAMESPACE}text")]
    assert {"Figure", "slow & steady", "fast", "chance", "1k", "10k", "samples"} <= set(words)


def test_one_point_is_a_picture_too():
    ElementTree.fromstring(log_curves([Curve("a", [5], [0.0], [0.0], [0.0])], "t", "x", "y"))
