import numpy as np
import pytest

from diptych.core.errors import ServeError
from diptych.serve.embed import embed_split, read_embedded
from tests.evals import fakes


@pytest.mark.parametrize("dtype,error", [("float16", 5e-4), ("float32", 1e-6)])
def test_rows_are_those_of_the_model(tmp_path, dtype, error):
    split, model = fakes.pairs(23), fakes.model()
    found = embed_split(model, split, tmp_path, batch_size=5, dtype=dtype)
    assert isinstance(found.matrix, np.memmap)
    assert found.matrix.dtype == dtype
    np.testing.assert_allclose(found.matrix, model.embed_image(split.images).numpy(), atol=error)
    assert [u.decode() for u in found.uids] == [split.uid(i) for i in range(23)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embeddings.npy", "rows.npy", "uids.npy"]


def test_broken_images_have_no_row(tmp_path):
    split = fakes.pairs(9)
    split.images[2] = split.images[8] = b"broken"
    found = embed_split(fakes.model(), split, tmp_path, batch_size=4)
    assert found.rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert sorted(found.broken) == [2, 8]
    assert len(found.matrix) == 7


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ServeError, match="needs a model with embed_image; got Scores with score"):
        embed_split(fakes.model(fakes.Scores), fakes.pairs(3), tmp_path)
    with pytest.raises(ServeError, match="must be finite"):
        embed_split(fakes.model(fakes.NotFinite), fakes.pairs(5), tmp_path)
    with pytest.raises(ServeError, match="a readable image; got 1 records"):
        embed_split(fakes.model(), fakes.FakeSplit([b"x"], [("1",)]), tmp_path)
    embed_split(fakes.model(), fakes.pairs(3), tmp_path)
    np.save(tmp_path / "rows.npy", np.arange(2))
    with pytest.raises(ServeError, match="equally many vectors, rows and uids"):
        read_embedded(tmp_path)
    (tmp_path / "rows.npy").write_bytes(b"no array")
    with pytest.raises(ServeError, match="an index must hold"):
        read_embedded(tmp_path)
