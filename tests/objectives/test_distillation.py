import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import DistillClipLoss

import diptych.objectives.distillation as distillation
from diptych.checkpoints.native import save_pretrained
from diptych.core.batch import Batch
from diptych.core.errors import CheckpointError, ConfigError
from diptych.data.tokenize import Tokenizer
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.distillation import DistillationConfig, follow, scale_of
from tests.objectives.tiny_model import TinyConfig, tiny_batch


def vectors(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def with_teacher(batch: Batch, d: int = 6) -> Batch:
    cached = {"teacher_image": 3 * vectors(batch.size, d, 1), "teacher_text": vectors(batch.size, d, 2)}
    return Batch(**{**vars(batch), "cached": cached})


def plain(rows, columns, scale, their_rows, their_columns, their_scale):
    """The same as one would write it down."""
    target = (their_scale * their_rows @ their_columns.T).softmax(1)
    return -(target * (scale * rows @ columns.T).log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("tile", [1, 7 * 9, 1 << 22])
def test_tiles_give_value_and_gradient_of_the_whole_matrix(monkeypatch, tile):
    """Tolerance: float32 sums in another order."""
    monkeypatch.setattr(distillation, "TILE", tile)
    theirs = (vectors(5, 3, 2), vectors(9, 3, 3), 20.0)
    found = []
    for function in (follow, plain):
        inputs = [vectors(5, 8, 0), vectors(9, 8, 1), torch.tensor(7.0)]
        for x in inputs:
            x.requires_grad_()
        loss = function(*inputs, *theirs)
        (2.5 * loss).backward()
        found.append([loss.detach(), *(x.grad for x in inputs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_frozen_vectors_get_no_gradient():
    rows, columns = vectors(5, 8, 0), vectors(5, 8, 1).requires_grad_()
    loss = follow(rows, columns, torch.tensor(7.0), vectors(5, 3, 2), vectors(5, 3, 3), 20.0)
    loss.backward()
    assert rows.grad is None
    assert columns.grad is not None


def test_the_loss_is_that_of_open_clip():
    """Tolerance: float32 sums in another order."""
    model = TinyConfig().build(20)
    objective = DistillationConfig(teacher_scale=50.0, weight=0.5, duplicates="ignore").build(model)
    batch = with_teacher(tiny_batch(8))
    encoded = objective.encode(batch)
    losses = objective.loss(encoded, batch)
    names = ("image", "text", "teacher_image", "teacher_text")
    image, text, their_image, their_text = (encoded[n] for n in names)
    scale = model.log_logit_scale.exp()
    contrastive, distill = DistillClipLoss()(image, text, scale, their_image, their_text, 50.0)
    assert losses.parts["distill"].item() == pytest.approx(distill.item(), rel=1e-5)
    assert losses.total.item() == pytest.approx((contrastive + 0.5 * distill).item(), rel=1e-5)
    found = torch.autograd.grad(losses.total, list(model.parameters()), retain_graph=True)
    expected = torch.autograd.grad(contrastive + 0.5 * distill, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_without_weight_it_is_the_contrastive_loss():
    model, batch = TinyConfig().build(20), with_teacher(tiny_batch(8, text_ids=[1, 1, 2, 3, 4, 5, 6, 7]))
    bare = ContrastiveConfig().build(model)(batch).total
    assert DistillationConfig(teacher_scale=9.0, weight=0.0).build(model)(batch).total.item() == bare.item()


def test_a_student_that_knows_nothing_pays_the_chance_loss():
    objective = DistillationConfig(teacher_scale=9.0, weight=2.0).build(TinyConfig().build(20))
    batch = with_teacher(tiny_batch(8))
    encoded = objective.encode(batch)
    encoded["text"] = encoded["text"][:1].expand(8, -1).contiguous()  # all texts alike: every softmax over them is flat
    encoded["image"] = encoded["image"][:1].expand(8, -1).contiguous()
    loss = objective.loss(encoded, batch).total.item()
    assert loss == pytest.approx(objective.health(encoded, batch)["chance_loss"], rel=1e-5)
    assert loss == pytest.approx(3 * math.log(8), rel=1e-5)


def test_the_teachers_own_scale_is_read_from_its_folder(tmp_path):
    teacher = TinyConfig().build(300)
    with torch.no_grad():
        teacher.log_logit_scale.fill_(math.log(33.0))
    save_pretrained(tmp_path / "teacher", teacher, Tokenizer.train(["a b"], vocab_size=300))
    assert scale_of(tmp_path / "teacher") == pytest.approx(33.0)
    objective = DistillationConfig(teacher=str(tmp_path / "teacher")).build(TinyConfig().build(20))
    assert objective.teacher_scale == pytest.approx(33.0)
    with pytest.raises(CheckpointError, match="not there"):
        scale_of(tmp_path / "nobody")


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match="teacher must be a model folder"):
        DistillationConfig().build(TinyConfig().build(20))
    with pytest.raises(ConfigError, match="cached teacher_image"):
        DistillationConfig(teacher_scale=9.0).build(TinyConfig().build(20))(tiny_batch(8))


def test_cached_vectors_stand_for_a_tower():
    from tests.train.test_accumulate import small_vit

    model = small_vit().build(20).eval()
    batch = tiny_batch(6)
    batch = Batch(**{**vars(batch), "images": torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)})
    objective = ContrastiveConfig().build(model)
    live = objective.encode(batch)
    vectors = {"image": model.image_vectors(batch.images), "text": model.text_vectors(batch.tokens, batch.lengths)}
    for kinds in (("image",), ("text",), ("image", "text")):
        left = {"images": None, "image_record": None} if "image" in kinds else {}
        left |= {"tokens": None} if "text" in kinds else {}
        found = objective.encode(Batch(**{**vars(batch), **left, "cached": {k: vectors[k] for k in kinds}}))
        assert all(torch.equal(found[k], live[k]) for k in live)
