"""DALL-E (Ramesh et al., 2021, arXiv:2102.12092): a text and then the codes of its image, one loss for both.

The paper's size is 12 billion parameters, whose attention is sparse; here it is dense. Its codec, a discrete VAE of
8,192 codes at a stride of 8, is the stage before.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.codecs.codec import CodecConfig
from diptych.models.dalle import DalleConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.dalle import TextThenImageConfig
from diptych.recipes import discrete_vae, vqvae
from diptych.train.config import RunConfig, TrainConfig

MOVES = AugmentConfig(
    crop_scale=None, zoom=(0.9, 1.1), stretch=0.05, translate=0.05, rotate=5, brightness=0.1, contrast=0.1
)
"""A picture may move a little; what it is called by, its colour, stays."""


def tiny() -> RunConfig:
    """Two runs: a codec learns 64 codes of 512 for an image of 32 pixels, and two blocks learn to foresee them.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain dalle:tiny data=emoji
             diptych paint RUN "a red apple" --out apple.png
    Cost:    about five minutes of two cores, one and a half of them the codec's
    Expect:  among 200 pictures of the test artist text-to-image R@1 of 4.0 % [2.0, 7.7], R@10 of 24 % [19, 30] and
             image-to-text R@10 of 36 % [30, 43] (chance 0.5 % and 5 %); with image_prior=kept texts find nothing
             beyond chance. What it paints has the colours and the kind (a flag, a face), not yet the thing
    """
    codec = vqvae.tiny()
    assert isinstance(codec.model, CodecConfig)
    return RunConfig(
        before=(codec.replace(stage="codec", train=codec.train.replace(samples_seen=30_000)),),
        parts={"codec": "stage:codec#"},
        data=LoaderConfig(augment=MOVES),
        model=DalleConfig(
            image_format=codec.model.image_format,
            context_length=24,
            codec=codec.model,
            decoder=BlockConfig(width=192, depth=2, heads=3),
            guidance=2.0,
        ),
        objective=TextThenImageConfig(),
        train=TrainConfig(
            samples_seen=40_000,
            global_batch=64,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            freeze=("codec",),
            eval_every_samples=40_000,  # at the end: each pair is a pass of its own
            val_batches=2,
        ),
        evals=(RetrievalConfig(captions="first", image_prior="removed", most_scored=100),),
    )


def small() -> RunConfig:
    """Twelve blocks, 768 wide, over 16 x 16 codes at 128 pixels: for one card and some hundred thousand pairs.

    Run:     diptych pretrain dalle:small data=DIR
    """
    codec = discrete_vae.paper()
    train = codec.train.replace(samples_seen=6_400_000, global_batch=256)
    codec = codec.replace(model=codec.model.replace(image_format=ImageFormat(resolution=128)), train=train)
    return _paper(codec, 768, 12, 12, TrainConfig(samples_seen=12_800_000, global_batch=256, lr=3e-4))


def paper() -> RunConfig:
    """DALL-E as published: 64 blocks, 3,968 wide, 62 heads of 64, 256 places of text, 32 x 32 codes at 256 pixels;
    430,000 steps of 1,024 pairs.

    Run:     diptych pretrain dalle:paper data=DIR
    """
    batch = 1024
    train = TrainConfig(
        samples_seen=430_000 * batch,
        global_batch=batch,
        lr=4.5e-4,
        warmup_samples=5_000 * batch,
        grad_clip=4.0,
        checkpoint_activations=True,
        sharding="fsdp",
    )
    return _paper(discrete_vae.paper(), 3968, 64, 62, train)


def _paper(codec: RunConfig, width: int, depth: int, heads: int, train: TrainConfig) -> RunConfig:
    """The paper's AdamW around any size."""
    assert isinstance(codec.model, CodecConfig)
    return RunConfig(
        before=(codec.replace(stage="codec"),),
        parts={"codec": "stage:codec#"},
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.75, 1.0))),
        model=DalleConfig(
            image_format=codec.model.image_format,
            context_length=256,
            codec=codec.model,
            decoder=BlockConfig(width=width, depth=depth, heads=heads),
            guidance=3.0,
        ),
        objective=TextThenImageConfig(),
        train=train.replace(weight_decay=0.045, betas=(0.9, 0.96), eps=1e-8, precision="bfloat16", freeze=("codec",)),
    )
