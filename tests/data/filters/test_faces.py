"""Too many faces or too large ones, by boxes or by looking."""

import pytest

from diptych.core.record import Record
from diptych.data.candidates import CandidatePool
from diptych.data.face_blur import FaceBlurConfig
from diptych.data.filters.faces import FacesConfig
from diptych.data.pack import PackConfig, pack
from diptych.data.sources.source import FromRecords
from tests.data.curation_pools import packed_pool
from tests.data.faces import faces
from tests.data.filters.judged import judged
from tests.data.pictures import encode

SMALL, LARGE = [0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.5, 0.9]


def test_reasons_by_boxes(tmp_path) -> None:
    boxes = [[], [SMALL], [SMALL, LARGE], None, [[10, 10, 20, 20]], [LARGE]]
    metas = [{} if b is None else {"face_bboxes": b} for b in boxes]
    pool = CandidatePool(packed_pool(tmp_path / "d", [[f"caption {i}"] for i in range(6)], metas))

    def said(**settings) -> list[str]:
        return judged(pool, FacesConfig(**settings), tmp_path, [True] * 5 + [False])[:5]

    assert said() == ["", "", "large_faces", "", "bad_face_boxes"]
    assert said(max_share=0.46) == ["", "", "", "", "bad_face_boxes"]
    assert said(max_faces=1) == ["", "", "many_faces", "", "bad_face_boxes"]
    assert said(max_faces=0, without="drop") == ["", "many_faces", "many_faces", "no_face_boxes", "bad_face_boxes"]
    assert said(field="other", without="drop") == ["no_face_boxes"] * 5


def test_reasons_by_looking_and_a_pool_whose_faces_are_blurred_has_none_left(tmp_path) -> None:
    pytest.importorskip("cv2")
    pictures = [faces(), faces((80, 80, 90)), faces((280, 170, 160), (80, 80, 90))]
    records = [
        Record.pair(f"k{i}", encode(p), "png", ("words",), meta={"split": "train"}) for i, p in enumerate(pictures)
    ]
    config = PackConfig(tokenizer="none", jobs=1)
    pack(FromRecords(lambda: records), tmp_path / "plain", config)
    pool = CandidatePool(tmp_path / "plain")
    assert judged(pool, FacesConfig(by="detect", max_faces=1), tmp_path) == ["", "", "many_faces"]
    assert judged(pool, FacesConfig(by="detect", max_share=0.1), tmp_path) == ["", "", "large_faces"]
    blur = FaceBlurConfig(blur="detect", strength=0.2)
    report = pack(FromRecords(lambda: records), tmp_path / "blurred", config.replace(faces=blur))
    assert report.notes == {"faces_blurred": 2, "reencoded": 2}
    pool = CandidatePool(tmp_path / "blurred")
    assert judged(pool, FacesConfig(by="detect", max_faces=0), tmp_path) == [""] * 3
    assert judged(pool, FacesConfig(max_faces=0), tmp_path) == ["", "many_faces", "many_faces"]
    assert [pool.rows(pool.shards[0]).meta(i).get("faces_blurred") for i in range(3)] == [None, 1, 2]
