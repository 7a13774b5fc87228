from diptych.recipes import flava


def test_the_papers_numbers():
    run = flava.base()
    assert run.train.global_batch == 8192
    assert (run.train.lr, run.train.weight_decay, run.train.betas) == (1e-3, 0.1, (0.9, 0.999))
    masking = run.objective.image_masking
    assert (masking.count(196), masking.shape, masking.min_block, masking.aspect) == (75, "block", 16, 0.3)
    words = run.objective.text_masking
    assert (words.rate, words.replaced, words.random, words.unit) == (0.15, 0.8, 0.1, "word")
    assert run.objective.mismatched == 0.1
    assert (run.model.image.depth, run.model.text.depth, run.model.fusion.depth) == (12, 12, 6)


def test_the_codec_that_base_takes_is_the_one_that_codec_trains():
    assert flava.base().model.codec == flava.codec().model
    assert flava.tiny().model.codec == flava.tiny().before[0].model
    assert flava.tiny().train.freeze == ("codec",)


def test_apart_no_pair_is_read_as_one():
    objective = flava.base_apart().objective
    assert objective.image_alone + objective.text_alone == 1
