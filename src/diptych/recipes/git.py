"""GIT (Wang et al., 2022, arXiv:2205.14100): an image's tokens see each other, text follows them, one loss.

The paper's sizes: CLIP's image tower, a linear map with a norm, and six blocks of BERT's kind, 768 wide, whose
positions count text alone. The image tower learns at 1e-5 and the rest at 5e-5, both falling as a cosine to 0, over two
epochs in batches of 4,096 after 500 steps; targets are smoothed by 0.1. AdamW's moments and decay are ours.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.vqa import VqaConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.linear import LinearConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.packaged import PREFIX
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.train.config import RunConfig, TrainConfig

SHAPES = ImageFormat(resolution=32, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SHIFTS = AugmentConfig(crop_scale=None, flip=0.5, translate=0.1)
"""What changes neither colour nor shape."""
BATCH = 4_096


def tiny() -> RunConfig:
    """A small residual conv tower and two blocks of BERT's kind, from scratch, all at once.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain git:tiny data=easy_vqa
    Cost:    about three minutes of two cores
    Expect:  85.5 % [84.7, 86.1] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    return RunConfig(
        data=LoaderConfig(augment=SHIFTS),
        model=PrefixLMConfig(
            image_format=SHAPES,
            context_length=32,
            embed_dim=128,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            connector=LinearConfig(norm=True),
            language=_decoder(width=128, depth=2, heads=4),
            seen="prefix",
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=240_000,
            global_batch=128,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            channels_last=True,
        ),
        evals=(VqaConfig(),),
    )


def base() -> RunConfig:
    """GIT-B: CLIP's ViT-B/16; 10 M pairs, twice. With the vocabulary of BERT, which a package ships.

    Run:     diptych pretrain git:base data=DIR parts.image_tower=CLIP

    CLIP is CLIP's ViT-B/16 converted into ours.
    """
    image = VisionTransformerConfig(patch_size=16, width=768, depth=12, heads=12, activation="quick_gelu")
    return _paper(image, samples_seen=2 * 10_000_000)


def large() -> RunConfig:
    """GIT-L: CLIP's ViT-L/14; 20 M pairs, twice. Run: as `base`, with CLIP's ViT-L/14."""
    image = VisionTransformerConfig(patch_size=14, width=1024, depth=24, heads=16, activation="quick_gelu")
    return _paper(image, samples_seen=2 * 20_000_000)


def _decoder(width: int, depth: int, heads: int) -> CausalTransformerConfig:
    """Blocks of BERT's kind that write: a norm behind each half and on the embeddings, positions of the text alone."""
    return CausalTransformerConfig(
        width=width,
        depth=depth,
        heads=heads,
        norm_eps=1e-12,
        norm_position="post",
        positions="learned",
        counted="text",
        head_bias=True,
        norm_embed=True,
        norm_final=False,
    )


def _paper(image: VisionTransformerConfig, samples_seen: int) -> RunConfig:
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        tokenizer=f"{PREFIX}minilm",
        model=PrefixLMConfig(
            context_length=40,
            embed_dim=image.width,
            image=image.replace(projection="none"),
            connector=LinearConfig(norm=True),
            language=_decoder(width=768, depth=6, heads=12),
            seen="prefix",
        ),
        objective=CausalLMConfig(label_smoothing=0.1),
        train=TrainConfig(
            samples_seen=samples_seen,
            global_batch=BATCH,
            lr=5e-5,
            warmup_samples=500 * BATCH,
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            precision="bfloat16",
            rates=(("image", 0.2),),
        ),
        evals=(CaptioningConfig(),),
    )
