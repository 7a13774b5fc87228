"""CoCa (Yu et al., 2022, arXiv:2205.01917): contrastive vectors and captions from one forward pass.

The paper trains with Adafactor; here it is AdamW with the paper's rate, decay and moments.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.evals.vqa import VqaConfig
from diptych.models import sizes
from diptych.models.coca import CoCaConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.coca import ContrastiveCaptioningConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """clip:tiny's image tower, sixteen queries, and one layer in each half of the text side.

    The tower has batch norm: with pieces of a batch (micro_batch) its statistics are of each piece.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain coca:tiny data=emoji
    Cost:    about six minutes of two cores
    Expect:  text-to-image R@1 of 45.9 % [43.5, 48.1] on the test artist (chance 0.05 %)
    """
    model = sizes.tiny()
    half = BlockConfig(width=192, depth=1, heads=3)
    return clip.tiny().replace(
        model=CoCaConfig(
            image_format=model.image_format,
            context_length=model.context_length,
            embed_dim=model.embed_dim,
            image=model.image,
            text=half,
            decoder=half,
            queries=16,
            pooler_heads=3,
        ),
        objective=ContrastiveCaptioningConfig(label_smoothing=0.3),
    )


def tiny_vqa() -> RunConfig:
    """coca:tiny on questions and answers: pictures are not recoloured, for colours are asked for.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain coca:tiny_vqa data=easy_vqa
    Cost:    about five minutes of two cores
    Expect:  86.1 % [85.5, 86.8] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    run = tiny()
    assert isinstance(run.model, CoCaConfig)
    shifted = AugmentConfig(crop_scale=None, zoom=(0.9, 1.1), translate=0.05)
    return run.replace(
        data=LoaderConfig(augment=shifted),
        model=run.model.replace(context_length=32),
        objective=ContrastiveCaptioningConfig(),
        train=run.train.replace(lr=2e-3, weight_decay=0.1, samples_seen=256_000),
        evals=(VqaConfig(),),
    )


def base() -> RunConfig:
    """CoCa-Base: ViT of 12 layers, 768 wide, at 288 pixels with patches of 18; 12 and 12 layers of text."""
    return _paper(768, 12, 12, 3072)


def large() -> RunConfig:
    """CoCa-Large: ViT of 24 layers, 1024 wide; 12 and 12 layers of text of that width."""
    return _paper(1024, 24, 16, 4096)


def _paper(width: int, depth: int, heads: int, mlp_width: int) -> RunConfig:
    half = BlockConfig(width=width, depth=12, heads=heads, mlp_ratio=mlp_width / width)
    image = VisionTransformerConfig(
        patch_size=18,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_width / width,
        pooling="mean",
        norm_pre=False,
        patch_bias=True,
    )
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig()),
        model=CoCaConfig(
            image_format=ImageFormat(resolution=288),
            context_length=64,
            embed_dim=width,
            image=image,
            text=half,
            decoder=half,
            queries=256,
            pooler_heads=heads,
        ),
        objective=ContrastiveCaptioningConfig(),
        train=TrainConfig(
            samples_seen=500_000 * 65_536,
            global_batch=65_536,
            lr=8e-4,
            warmup_samples=10_000 * 65_536,
            weight_decay=0.01,
            betas=(0.9, 0.999),
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(),),
    )
