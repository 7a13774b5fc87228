import torch

from diptych.models.beit3 import BEiT3Config
from diptych.objectives.contrastive import Contrastive
from diptych.recipes import beit3
from diptych.train.freeze import freeze, objective_around


def test_the_dual_encoder_trains_all_that_it_uses_and_nothing_else():
    run = beit3.tiny()
    model = run.model.build(300)
    objective = objective_around(run, model)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.randint(3, 300, (4, 6))
    lengths = torch.tensor([6, 4, 5, 3])
    pairs = model.encode_image(images) @ model.encode_text(tokens, lengths).T * model.log_logit_scale.exp()
    pairs.square().sum().backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in model.named_parameters() if p.grad is not None}
    assert isinstance(objective, Contrastive)


def test_stages_hand_on_one_model():
    run = beit3.tiny()
    codec, filling = run.before
    assert filling.model == run.model.replace(scored_by="likelihood")
    assert filling.model.codec == codec.model
    with torch.device("meta"):
        objective = objective_around(filling, filling.model.build(300))
    assert not any(p.requires_grad for n, p in objective.named_parameters() if "codec." in n or "projection" in n)


def test_the_papers_sizes():
    for run, millions in ((beit3.base(), 86), (beit3.large(), 303), (beit3.giant(), 1009)):
        assert isinstance(run.model, BEiT3Config)
        with torch.device("meta"):
            model = run.model.build(64000)
        experts = sum(p.numel() for n, p in model.blocks.named_parameters() if ".image." in n)
        assert round(experts / 1e6) in range(millions - 3, millions + 4)  # those that an image meets
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) > 2 * experts
    run = beit3.base_retrieval()
    with torch.device("meta"):
        freeze(run.objective.build(run.model.build(64000)), run.train.freeze)
