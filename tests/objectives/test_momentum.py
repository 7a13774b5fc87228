import copy
import math
from dataclasses import replace

import pytest
import torch

from diptych.core.errors import ConfigError, DataError
from diptych.objectives import matching
from diptych.objectives.matching import CHANCE
from diptych.objectives.momentum import EMATeacher, EmbeddingQueue
from tests.models.small_fusion import small_blip
from tests.models.writers import stirred, text_batch
from tests.objectives.fusion_ranks import KINDS, compute_together, gradient, objective_of
from tests.objectives.query_ranks import whole
from tests.objectives.test_query_alignment import same_pairs
from tests.objectives.tiny_model import TinyConfig
from tests.reference import momentum as plain


def rows(count: int, width: int = 4, first: int = 0) -> dict[str, torch.Tensor]:
    numbers = torch.arange(first, first + count)
    vectors = numbers[:, None].float().expand(-1, width)
    return {"image": vectors, "text": -vectors, "image_ids": numbers, "text_ids": 100 + numbers}


def test_the_queue_overwrites_its_oldest_and_says_what_is_there():
    queue = EmbeddingQueue(5, 4)
    assert not queue.there.any()
    queue.put(rows(3))
    assert queue.there.tolist() == [True] * 3 + [False] * 2
    queue.put(rows(3, first=3))
    assert queue.image[:, 0].tolist() == [5, 1, 2, 3, 4]
    assert queue.text_ids.tolist() == [105, 101, 102, 103, 104]
    assert queue.there.all()
    queue.put(rows(7, first=10))  # more than it holds: the last of them
    assert sorted(queue.image_ids.tolist()) == [12, 13, 14, 15, 16]


def test_vectors_that_are_no_numbers_do_not_enter_the_queue():
    queue = EmbeddingQueue(4, 2)
    queue.put(rows(4, 2))
    bad = rows(2, 2, first=8)
    bad["text"] = torch.tensor([[float("nan"), 1], [2, 2]])
    queue.put(bad)
    assert queue.image[:, 0].tolist() == [0, 9, 2, 3]
    assert queue.image_ids.tolist() == [0, 9, 2, 3]


def test_the_teacher_is_an_average_that_rests():
    model = stirred(small_blip(image_norm="batch"))
    teacher = EMATeacher(model, 0.75)
    before = copy.deepcopy(teacher.model.state_dict())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    model.image_norm.running_mean.add_(2)
    teacher.train().update(model)
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.parameters())
    after = teacher.model.state_dict()
    torch.testing.assert_close(after["text.position_embed"], before["text.position_embed"] + 0.25)
    torch.testing.assert_close(after["image_norm.running_mean"], before["image_norm.running_mean"] + 0.5)


def test_contrast_and_matching_equal_plain_loops(monkeypatch):
    """With a teacher, a queue, duplicates in the batch and in the queue, in value and gradient."""
    wrong = ([1, 3, 0, 2], [2, 0, 3, 1])
    calls, every = iter(torch.tensor(wrong)), torch.ones(4)
    monkeypatch.setattr(matching, "draw_negatives", lambda *_: (next(calls), every))
    batch = replace(whole().slice(0, 4), text_ids=torch.tensor([0, 1, 2, 0]))
    objective = objective_of("blip", writing=0.0, label_smoothing=0.1)
    twin, teacher, queue = (copy.deepcopy(x) for x in (objective.model, objective.average.model, objective.queue))
    losses = objective(batch)
    losses.total.backward()

    same = [
        # of the queue: its first image is that of pair 1, its free places are no candidates
        row + [i == 1 and j == 0 for j in range(3)] + [True] * 4
        for i, row in enumerate(same_pairs(batch))
    ]
    features, scale = twin.image_features(batch.images), twin.log_logit_scale.exp()
    image, text = twin.unit_image(features), twin.unit_text(batch.tokens, batch.lengths)
    with torch.no_grad():
        image_m, text_m = teacher.encode_image(batch.images), teacher.encode_text(batch.tokens, batch.lengths)
    images, texts = torch.cat([image_m, queue.image]), torch.cat([text_m, queue.text])
    i2t = plain.contrast(scale * image, texts, scale * image_m, same, 0.4, 0.1)
    t2i = plain.contrast(scale * text, images, scale * text_m, same, 0.4, 0.1)
    ids = [row[:n] for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    judged = plain.matching(twin, features, ids, wrong)
    ((i2t + t2i) / 2 + judged).backward()
    assert losses.parts["contrast"].item() == pytest.approx(((i2t + t2i) / 2).item(), abs=1e-5)
    assert losses.parts["matching"].item() == pytest.approx(judged.item(), abs=1e-5)
    expected = dict(twin.named_parameters())
    compared = 0
    for name, p in objective.model.named_parameters():
        if expected[name].grad is not None and p.grad is not None:  # gradients of order 1, sums in another order
            torch.testing.assert_close(p.grad, expected[name].grad, atol=2e-5, rtol=1e-3, msg=name)
            compared += 1
    assert compared > 20


def test_without_teacher_and_queue_it_is_infonce():
    batch = whole()
    objective = objective_of("bare")
    encoded = objective.encode(batch)
    found = objective.loss(encoded, batch).parts["contrast"]
    scale = objective.model.log_logit_scale.exp()
    texts, images = encoded["text"], encoded["image"]
    i2t = plain.contrast(scale * images, texts, images, same_pairs(batch), 0.0, 0.1)
    t2i = plain.contrast(scale * texts, images, texts, same_pairs(batch), 0.0, 0.1)
    assert found.item() == pytest.approx(((i2t + t2i) / 2).item(), abs=1e-5)


def test_a_step_fills_the_queue_once_and_judging_never():
    objective = objective_of("albef")
    batch = whole()
    objective.after_step()
    assert int(objective.queue.filled) == 3
    objective.eval()
    objective(batch)
    objective.after_step()
    assert int(objective.queue.filled) == 3
    objective.train()
    with torch.no_grad():
        objective(batch)
    objective.after_step()
    assert int(objective.queue.filled) == 3
    objective(batch)
    objective.after_step()
    objective.after_step()
    assert (int(objective.queue.filled), int(objective.queue.pointer), int(objective.seen)) == (7, (3 + 7) % 7, 8)
    assert set(objective.queue.image_ids.tolist()) <= set(batch.image_ids.tolist())


def test_the_teachers_share_grows_with_the_samples_seen():
    objective = objective_of("blip", alpha=0.4, alpha_samples=16)
    assert objective.teacher_share().item() == 0
    objective(whole())
    objective.after_step()
    assert objective.teacher_share().item() == pytest.approx(0.2)
    for _ in range(4):
        objective(whole())
        objective.after_step()
    assert objective.teacher_share().item() == pytest.approx(0.4)
    assert objective_of("bare", alpha=0.4).teacher_share().item() == 0


def test_all_that_it_keeps_is_in_its_state():
    """What a checkpoint holds is enough to go on to the same loss."""
    first = objective_of("albef", alpha_samples=100)
    for _ in range(2):
        first(whole())
        first.after_step()
    again = objective_of("albef", alpha_samples=100)
    again.load_state_dict(first.state_dict())
    assert again(whole()).total.item() == first(whole()).total.item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch,kept", [(2, 1), (3, 0)])
def test_in_pieces_the_gradient_is_that_of_the_whole(kind, micro_batch, kept):
    once, pieces = gradient(kind), gradient(kind, micro_batch, kept)
    assert pieces["total"].item() == pytest.approx(once["total"].item(), abs=1e-5)
    assert pieces["gradients"].keys() == once["gradients"].keys()
    for name, g in once["gradients"].items():
        torch.testing.assert_close(pieces["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)
    for name, t in once["state"].items():
        torch.testing.assert_close(pieces["state"][name], t, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_are_one_queue_and_all(tmp_path):
    ranks = compute_together(tmp_path)
    for kind in KINDS:
        alone = gradient(kind)
        for way in ranks[0][kind]:
            both = [r[kind][way] for r in ranks]
            assert sum(r["total"].item() for r in both) / 2 == pytest.approx(alone["total"].item(), abs=1e-5)
            for part, value in alone["parts"].items():
                assert sum(r["parts"][part].item() for r in both) / 2 == pytest.approx(value.item(), abs=1e-5), part
            for name, g in alone["gradients"].items():
                for r in both:
                    torch.testing.assert_close(r["gradients"][name], g, atol=1e-5, rtol=1e-3, msg=name)
            for name, t in alone["state"].items():
                for r in both:
                    torch.testing.assert_close(r["state"][name], t, atol=1e-5, rtol=1e-4, msg=name)


def test_health_names_chance_and_what_the_queue_holds():
    objective = objective_of("blip")
    batch = whole()
    health = objective.health(objective.encode(batch), batch)
    assert health["chance_loss"] == pytest.approx(math.log(8 + 3) + CHANCE + math.log(30))
    assert health["queue"] == 3
    assert health["teacher_share"] == pytest.approx(0.4)
    assert health["duplicate_captions"] == health["duplicate_images"] == 2 / 8


def test_what_was_encoded_in_bfloat16_may_be_judged_outside_of_it():
    for kind in KINDS:
        objective = objective_of(kind)
        precise = objective(whole()).total.item()
        with torch.autocast("cpu", torch.bfloat16):
            encoded = objective.encode(whole())
            inside = objective.loss(encoded, whole()).total.item()
        assert objective.loss(encoded, whole()).total.item() == pytest.approx(precise, rel=0.05)
        assert inside == pytest.approx(precise, rel=0.05)


def test_what_it_cannot_use_is_said():
    with pytest.raises(ConfigError, match=r"BlipPretraining must be given a model .* got Tiny without features_of"):
        KINDS["blip"][1].build(TinyConfig().build(10))
    objective = objective_of("blip")
    with pytest.raises(DataError, match="must be given batches of images and texts"):
        objective(replace(whole(), tokens=None))
    with pytest.raises(DataError, match="one image a text; got 0 images for 8 texts"):
        objective(replace(whole(), images=None))
    with pytest.raises(ConfigError, match="must be 'ignore' for batches without text_ids"):
        objective(replace(whole(), text_ids=None, image_ids=None))
    ignoring = objective_of("blip", duplicates="ignore")
    assert ignoring(replace(text_batch((5, 2, 7)), text_ids=None, image_ids=None)).total.isfinite()
