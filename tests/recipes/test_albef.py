from diptych.recipes import albef


def test_the_papers_size():
    run = albef.base()
    assert run.model.image_format.resolution == 256
    assert (run.model.text.depth, run.model.fusion_depth) == (6, 6)
    assert run.objective.queue == 65_536
    assert (run.objective.momentum, run.objective.alpha) == (0.995, 0.4)
    assert run.objective.alpha_samples * 30 == run.train.samples_seen  # one of thirty epochs
    assert run.objective.masking.rate == 0.15


def test_tiny_has_a_teacher_and_a_queue():
    objective = albef.tiny().objective
    assert objective.momentum
    assert objective.queue
