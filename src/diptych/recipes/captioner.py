"""The captioner that CLIP's authors tried first (Radford et al., 2021, section 2.3): an image tower and a transformer
language model that predicts the caption, trained together from scratch.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.captioner import CaptionerConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """clip:tiny's image tower under a decoder of its text tower's size: everything else is equal, so they compare.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain captioner:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  text-to-image R@1 of 73.0 % [66.5, 79.5] among 200 pictures of the test artist, with the words' prior
             taken off (chance 0.5 %)
    """
    run, model = clip.tiny(), sizes.tiny()
    assert isinstance(model.text, TextTransformerConfig)
    decoder = CausalTransformerConfig(
        width=model.text.width,
        depth=model.text.depth,
        heads=model.text.heads,
        positions="learned",
        cross_attention="plain",
    )
    return run.replace(
        model=CaptionerConfig(
            image_format=model.image_format,
            context_length=model.context_length,
            embed_dim=model.embed_dim,
            image=model.image,
            language=decoder,
        ),
        objective=CausalLMConfig(),
        # every name is read beside every picture, so a sample of them is judged
        evals=(RetrievalConfig(captions="first", max_items=200, text_prior="removed"),),
    )


def paper() -> RunConfig:
    """RN50 and a decoder as deep and wide as CLIP's text tower (12 layers, 512 wide), at the rate of its RN50."""
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig()),
        model=CaptionerConfig(
            image_format=ImageFormat(resolution=224),
            embed_dim=1024,
            image=ModifiedResNetConfig(),
            language=CausalTransformerConfig(
                width=512, depth=12, heads=8, positions="learned", cross_attention="plain"
            ),
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=128_000_000,
            global_batch=8192,
            lr=5e-4,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(max_items=1000, text_prior="removed"),),
    )
