from diptych.recipes import blip


def test_the_papers_sizes():
    base, large = blip.base(), blip.large()
    assert (base.model.image.depth, large.model.image.depth) == (12, 24)
    assert base.model.text.norm_position == "post"
    assert base.objective.queue == 57_600
    assert (base.objective.momentum, base.objective.alpha) == (0.995, 0.4)
    assert base.objective.alpha_samples * 10 == base.train.samples_seen  # two of twenty epochs
    assert base.train.warmup_samples == 3_000 * base.train.global_batch
    assert base.objective.writing_smoothing == 0.1


def test_tiny_is_clips_tiny_but_for_model_and_objective():
    run = blip.tiny()
    assert run.model.image.widths == (32, 64, 128, 256)
    assert run.data == blip.clip.tiny().data
