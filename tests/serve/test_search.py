import json
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.functional import normalize

from diptych.checkpoints.native import save_pretrained
from diptych.core.errors import ServeError
from diptych.core.image_format import ImageFormat
from diptych.data.decode import decode_image
from diptych.data.tokenize import Tokenizer
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.serve.search import AWAY, embed_query, save_hits, search, write_contact_sheet
from tests.evals import fakes


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))


def test_words_find_their_image_in_every_split(dataset):
    for i in (0, 7, 29):
        hits = search(fakes.model(), dataset, f"thing {i}", k=4)
        assert (hits[0].key, hits[0].caption) == (f"item {i}", f"thing {i}")
        assert hits[0].score == pytest.approx(1, abs=1e-3)
        assert [h.rank for h in hits] == [1, 2, 3, 4]
        assert hits[0].split == ("train" if i % 3 else "val")
        assert hits[0].uid == dataset.split(hits[0].split).uid(hits[0].row)
        assert json.loads(json.dumps([asdict(h) for h in hits]))
    assert {h.split for h in search(fakes.model(), dataset, "thing 1", split="val", k=99)} == {"val"}
    assert len(search(fakes.model(), dataset, "thing 1", k=99)) == 30


def test_a_picture_finds_itself(dataset, tmp_path):
    (tmp_path / "x.png").write_bytes(fakes.picture(11))
    for image in (tmp_path / "x.png", fakes.picture(11), decode_image(fakes.picture(11))):
        assert search(fakes.model(), dataset, image=image, k=1)[0].key == "item 11"


def test_queries_combine(dataset):
    model = fakes.model()
    both = search(model, dataset, ["thing 3", "thing 4"], image=fakes.picture(5), k=3)
    assert {h.key for h in both} == {"item 3", "item 4", "item 5"}
    less = search(model, dataset, ["thing 3", "thing 4"], less_text="thing 4", k=30)
    assert less[0].key == "item 3"
    a, b = model.embed_text("thing 3")[0], model.embed_image(fakes.picture(4))[0]
    torch.testing.assert_close(
        embed_query(model, "thing 3", less_image=fakes.picture(4)), normalize(a - AWAY * b, dim=0)
    )


def test_hits_are_written_to_look_at(dataset, tmp_path):
    hits = search(fakes.model(), dataset, "thing 9", k=7)
    sheet = save_hits(hits, dataset.path, tmp_path / "found", title="thing 9, " + "a very long title " * 20)
    names = sorted(p.name for p in (tmp_path / "found").iterdir())
    assert names[0] == "001_item_9.png"
    assert len(names) == 9
    assert (tmp_path / "found" / names[0]).read_bytes() == fakes.picture(9)
    assert json.loads((tmp_path / "found" / "hits.json").read_text())[0]["key"] == "item 9"
    pixels = decode_image(sheet.read_bytes())
    assert pixels.shape[2] == 12 + 5 * 172
    assert (pixels != 255).any()
    long = replace(hits[0], key="食" * 300 + ".png")
    save_hits([long], dataset, tmp_path / "long")
    assert any(p.name.startswith("001_食") and p.suffix == ".png" for p in (tmp_path / "long").iterdir())
    one = write_contact_sheet(hits[:1], dataset, tmp_path / "one.png")
    assert decode_image(one.read_bytes()).shape[2] == 184


def test_a_saved_model_searches_its_own_data(dataset, tmp_path):
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=16),
        context_length=8,
        embed_dim=16,
        image=VisionTransformerConfig(patch_size=8, width=16, depth=1, heads=2),
        text=TextTransformerConfig(width=16, depth=1, heads=2),
    )
    tokenizer = Tokenizer.train([f"thing {i}" for i in range(30)], vocab_size=300, context_length=8)
    save_pretrained(tmp_path / "run" / "model", config.build(tokenizer.vocab_size), tokenizer)
    (tmp_path / "run" / "config.json").write_text("{}")
    hits = search(tmp_path / "run", dataset.path, image=fakes.picture(4), k=3)
    assert hits[0].key == "item 4"
    assert sorted(p.name for p in (tmp_path / "run" / "index").iterdir()) == [
        f"{dataset.fingerprint[:16]}-{name}" for name in ("train", "val")
    ]
    assert len(search(tmp_path / "run", dataset.path, "thing 4", k=3)) == 3


def test_errors_say_what_to_do(dataset, tmp_path):
    with pytest.raises(ServeError, match="words or an image to look for; got none"):
        search(fakes.model(), dataset)
    with pytest.raises(ServeError, match="must have words; got an empty text"):
        search(fakes.model(), dataset, " ")
    with pytest.raises(ServeError, match="k must be at least 1; got 0"):
        search(fakes.model(), dataset, "1", k=0)
    with pytest.raises(ServeError, match="needs a model with embed_text; got Scores with score"):
        search(fakes.model(fakes.Scores), dataset, "thing 1")
    with pytest.raises(ServeError, match="at least one hit"):
        write_contact_sheet([], dataset, tmp_path / "x.png")
