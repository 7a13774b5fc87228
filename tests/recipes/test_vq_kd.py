import torch

from diptych.recipes import clip, vq_kd


def test_the_teacher_is_the_stage_before_and_does_not_train():
    run = vq_kd.tiny()
    assert run.before[0].stage == "clip"
    assert run.before[0].model.image == run.model.teacher == clip.tiny().model.image
    assert run.model.embed_dim == run.before[0].model.embed_dim
    assert run.parts == {"teacher": "stage:clip#image_tower"}
    assert run.train.freeze == ("teacher",)
    codec = run.model.build()
    assert (codec.grid, codec.codebook_size) == ((4, 4), 256)


def test_the_paper_has_14_by_14_of_8192_codes():
    with torch.device("meta"):
        codec = vq_kd.base().model.build()
    assert (codec.grid, codec.codebook_size) == ((14, 14), 8192)
