"""Images are found where the page says, inside the folder or the WARC, and nowhere else."""

import base64
from pathlib import Path

import pytest

from diptych.data.collect.page_images import FolderImages, WarcImages, embedded
from diptych.data.collect.page_rules import Dropped
from diptych.data.web.refused import Refused
from tests.data.collect import warcs
from tests.data.pictures import png

MOST = 1 << 20


def found(images, source: str, url: str = "", most: int = MOST):  # the bytes, None, or the reason
    try:
        return images.find(source, url, most)
    except Dropped as dropped:
        return dropped.reason


def test_images_of_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "site"
    (root / "deep" / "b c").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "a.png").write_bytes(b"A")
    (root / "q.png?x=1").write_bytes(b"Q")
    (root / "deep" / "b c" / "d.png").write_bytes(b"D")
    images = FolderImages(root, root / "deep" / "p.html", "", known=False)
    cases = {
        "../a.png": b"A",
        "/a.png": b"A",
        "/a.png?v=2#top": b"A",
        "/q.png?x=1": b"Q",
        "b%20c/d.png": b"D",
        "../../secret.png": "leaves_folder",
        "/../secret.png": "leaves_folder",
        "..%2f..%2fsecret.png": "leaves_folder",
        "../link.png": "leaves_folder",
        str(tmp_path / "secret.png"): "file_not_found",
        "file:///etc/passwd": "bad_address",
        "a\0.png": "bad_address",
        "x" * 5000: "bad_address",
        "none.png": "file_not_found",
        "b%20c": "not_a_file",
        "http://e.org/a.png": None,
        "//e.org/a.png": None,
    }
    for source, wanted in cases.items():
        assert found(images, source) == wanted, source
    assert found(images, "/a.png", most=0) == "too_many_bytes"
    known = FolderImages(root, root / "p.html", "", known=True)
    assert found(known, "none.png", "http://e.org/none.png") is None
    assert found(FolderImages(root, root / "p.html", "deep/", False), "b c/d.png") == b"D"
    assert found(FolderImages(root, root / "p.html", "http://e.org/", True), "a.png") is None
    assert found(FolderImages(root, root / "p.html", "a%00b/", False), "a.png") == "bad_address"


def test_embedded_images() -> None:
    code = base64.b64encode(b"image").decode()
    assert embedded(f"data:image/png;base64,{code}", MOST) == b"image"
    assert embedded("data:image/svg+xml,%3Csvg/%3E", MOST) == b"<svg/>"
    assert embedded("a.png", MOST) is None
    for source, reason in (
        (f"data:image/png;base64,{'A' * 4000}", "too_many_bytes"),
        ("data:text/html,x", "bad_data_link"),
        ("data:image/png;base64", "bad_data_link"),
        ("data:image/png;base64,A", "bad_data_link"),
    ):
        with pytest.raises(Dropped) as dropped:
            embedded(source, 1000)
        assert dropped.value.reason == reason


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_of_a_warc(tmp_path: Path, suffix: str) -> None:
    path = warcs.write(
        tmp_path / f"a.warc{suffix}",
        warcs.page("http://e.org/p", "<p>"),
        warcs.page("http://e.org/a.png", png(1), content_type="image/png"),
        warcs.page("http://e.org/b.png", png(2), content_type="image/png", X_Robots_Tag="noai"),
        warcs.page("http://e.org/.well-known/tdmrep.json", '[{"location": "/x/*", "tdm-reservation": 1}]'),
        warcs.page("http://[e/.well-known/tdmrep.json", '[{"location": "/", "tdm-reservation": 1}]'),
        warcs.record("resource", "http://e.org/c.png", png(3), "image/png"),
    )
    images = WarcImages(path, MOST)
    assert found(images, "a.png", "http://e.org/a.png#x") == png(1)
    assert found(images, "c.png", "http://e.org/c.png") == png(3)
    assert found(images, "b.png", "http://e.org/b.png") == "opt_out_noai"
    assert found(WarcImages(path, MOST, heed=False), "b.png", "http://e.org/b.png") == png(2)
    assert found(images, "d.png", "http://e.org/d.png") is None
    images.check("http://e.org/y")
    images.check("http://[f/y")
    with pytest.raises(Refused):
        images.check("http://e.org/x/y")
