import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from diptych.core.errors import DataError, EvalError
from diptych.core.image_format import ImageFormat
from diptych.evals import frozen_features
from diptych.evals.frozen_features import held_out, read_probe_data, take_features
from diptych.evals.knn import KnnConfig
from diptych.models.pretrained import Pretrained
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.two_tower import TwoTowerConfig
from diptych.models.vector_memory import VectorMemory
from diptych.models.vision_transformer import VisionTransformerConfig
from tests.evals import fakes
from tests.evals.fake_writer import writer
from tests.evals.labelled_data import Parts, judged_split, labelled_data


def _read(split, model=None, **settings):
    return read_probe_data(KnnConfig(**settings), model or fakes.model(by_label=True), split, "knn")


def _towers(pooling="cls", projection="linear"):
    """A dual encoder with random weights, for the fakes' pictures."""
    size = {"width": 16, "depth": 1, "heads": 2}
    config = TwoTowerConfig(
        image_format=ImageFormat(resolution=fakes.SIDE),
        embed_dim=8 if projection == "linear" else 16,
        image=VisionTransformerConfig(**size, patch_size=4, pooling=pooling, projection=projection),
        text=TextTransformerConfig(**size),
    )
    torch.manual_seed(0)
    return Pretrained(config.build(50), fakes.FakeTokenizer())


def test_features_and_classes_of_both_splits():
    found = _read(judged_split(30), _towers())
    assert found.classes.names == tuple(f"kind {c}" for c in range(10))
    assert (found.train.features.shape, found.judged.features.shape) == ((200, 8), (30, 8))
    assert found.judged.truth.tolist() == [found.judged.split.meta(p)["class_index"] for p in found.judged.places]
    assert np.bincount(found.train.truth).tolist() == [20] * 10
    assert (found.about["features"], found.about["train_images_also_judged"]) == ("embedding", 0)
    torch.testing.assert_close(found.judged.features.norm(dim=1), torch.ones(30))
    few = _read(judged_split(30), _towers(), max_train=50, label_field="class_index")
    assert len(few.train.truth) == 50
    assert few.classes.names == tuple("0123456789")


@pytest.mark.parametrize("projection", ["linear", "none"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "map"])
def test_each_kind_of_feature_is_read_off_where_it_stands(pooling, projection):
    model = _towers(pooling, projection)
    network, images = model.model, torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        projected = take_features(model, "projected")(images)
        torch.testing.assert_close(normalize(projected, dim=1), network.embed_image(images))
        if projection == "linear":
            pooled = take_features(model, "pooled")(images)
            torch.testing.assert_close(network.image_tower.projection(pooled), projected)
            assert pooled.shape == (3, 16)
    assert not network.image_tower._forward_hooks  # the look leaves nothing behind


def test_pooled_features_reach_the_probe_unnormalised():
    pooled = _read(judged_split(30), _towers(), features="pooled")
    assert pooled.train.features.shape == (200, 16)
    assert (pooled.train.features.norm(dim=1) - 1).abs().min() > 1e-3


def test_a_model_that_writes_gives_the_mean_of_its_tokens():
    split = judged_split(30)
    model = writer(fakes.labelled(30, 10))
    seen = model.model.image_features(torch.stack([model.pixels(split.image_bytes(0))]))
    found = _read(split, model)
    assert found.about["features"] == "tokens"
    torch.testing.assert_close(found.judged.features[0], seen.float().mean(1)[0])


class _Paints(fakes.Mute):
    """Neither embeds nor writes; it has hidden states of an image."""

    def image_features(self, images):
        pixels = images.float().flatten(2)  # (i, 3, p)
        return torch.cat([pixels, pixels.square()], 1).transpose(1, 2)


def test_any_other_model_gives_the_mean_of_what_stands_for_an_image_in_it():
    model, split = fakes.model(_Paints), judged_split(30)
    assert KnnConfig().unsuited(model, split) == ""
    found = _read(split, model)
    assert (found.about["features"], found.about["feature_size"]) == ("tokens", 6)
    image = torch.stack([model.pixels(split.image_bytes(0))])
    torch.testing.assert_close(found.judged.features[0], model.model.image_features(image).mean(1)[0])
    assert "neither embeds" in KnnConfig().unsuited(fakes.model(fakes.Mute), split)


def test_embeddings_are_computed_once():
    model = _towers()
    model.memory = VectorMemory()
    _read(judged_split(30), model)
    assert model.memory.computed["image"] == 230
    _read(judged_split(30), model)
    assert model.memory.computed["image"] == 230


def test_images_that_are_judged_are_not_learned_from_and_are_counted(monkeypatch):
    """A planted leak: 30 of the pictures to learn from are judged too. Packing would have left them out."""
    data = Parts(train=range(30, 130), val=range(60))
    monkeypatch.setattr(frozen_features, "open_data", lambda folder: data)
    removed = _read(data.split("val"), data="here")
    assert (len(removed.train.truth), removed.about["train_images_also_judged"]) == (70, 30)
    kept = _read(data.split("val"), data="here", duplicates="kept")
    assert (len(kept.train.truth), kept.about["train_images_also_judged"]) == (100, 30)
    # a model that knows every picture, and nothing of classes, is found out
    knows = fakes.model(perfect=False)
    leaked = KnnConfig(data="here", k=1, duplicates="kept").build().run(knows, data.split("val"))
    clean = KnnConfig(data="here", k=1).build().run(knows, data.split("val"))
    assert leaked.metrics["acc_at_1"].low > 0.4 > clean.metrics["acc_at_1"].high
    assert dict(leaked.figures[0].rows)["of them also judged"] == "30 (kept)"


def test_what_does_not_suit_is_said_and_errors_say_what_to_do():
    split, model = judged_split(30), _towers()
    assert KnnConfig().unsuited(model, split) == ""
    assert "no label in their meta" in KnnConfig().unsuited(model, fakes.pairs(5))
    assert "no split 'train'" in KnnConfig().unsuited(model, fakes.labelled(5, 2))
    assert "several labels" in KnnConfig(label_field="x").unsuited(
        model, fakes.FakeSplit([fakes.picture(0)], [()], [{"x": ["a"]}])
    )
    assert "no embed_image" in KnnConfig(features="pooled").unsuited(writer(fakes.labelled(5, 2)), split)
    assert "neither embeds" in KnnConfig(features="tokens").unsuited(model, split)
    with pytest.raises(EvalError, match="features=pooled: the model's image tower has no place"):
        _read(split, fakes.model(), features="pooled")
    with pytest.raises(EvalError, match=r"belongs to none\. Name it: data=DIR"):
        _read(fakes.labelled(5, 2))
    with pytest.raises(EvalError, match="other images than it learns from; got the split 'train' for both"):
        _read(labelled_data(30).split("train"))
    with pytest.raises(DataError, match="must be one of"):
        _read(split, train_split="learn")
    with pytest.raises(EvalError, match="finite features; got 1 of"):
        _read(judged_split(30), fakes.model(fakes.NotFinite))


def test_a_share_is_held_out_by_its_key():
    mask = held_out(10, 0.2, 0, "validation")
    assert mask.sum() == 2
    assert mask.tolist() == held_out(10, 0.2, 0, "validation").tolist()
    assert held_out(3, 0.01, 0).sum() == 1
    assert held_out(3, 0.99, 0).sum() == 2
