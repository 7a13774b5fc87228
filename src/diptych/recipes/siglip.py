"""SigLIP (Zhai et al., 2023, arXiv:2303.15343): two towers and the sigmoid loss of every pair on its own."""

from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.objectives.sigmoid import SigmoidConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """clip:tiny with the sigmoid loss: everything else is equal, so the two can be compared.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain siglip:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  text-to-image R@1 of 41.2 % [39.0, 43.4] on the test artist (chance 0.05 %)
    """
    run = clip.tiny()
    model = run.model.replace(init_logit_scale=2.302585092994046, init_logit_bias=-10.0)
    return run.replace(model=model, objective=SigmoidConfig())


def b16() -> RunConfig:
    """SigLIP B/16 at 224 pixels with the paper's optimizer; bring its tokenizer with tokenizer=FOLDER."""
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig()),
        model=sizes.siglip_b16(),
        objective=SigmoidConfig(),
        train=TrainConfig(
            samples_seen=128_000_000,
            global_batch=8192,
            lr=1e-3,
            weight_decay=1e-4,
            betas=(0.9, 0.95),
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(),),
    )
