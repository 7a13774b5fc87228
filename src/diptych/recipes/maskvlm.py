"""MaskVLM (Kwon et al., 2023, arXiv:2208.02131): pixels and words are masked in turn, each beside the other intact.

The paper's values: ViT-B/16 and a text tower of BERT-base's size, three blocks in each encoder and in the decoder, 60 %
of the patches and 30 % of the tokens, AdamW with decay 0.05, 512 pairs a batch, 50 epochs of four million pairs, of
which five warm up to 3e-4. Their towers begin pretrained; ours begin fresh, or from a model named in `parts`.
"""

from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.filling_in import FillingInConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.convnet import ConvNetConfig
from diptych.models.maskvlm import MaskVLMConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.maskvlm import MutualMaskingConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig

EPOCH = 4_000_000
"""Pairs of the paper's data (CC3M, SBU captions, COCO, Visual Genome)."""


def tiny() -> RunConfig:
    """A small residual conv tower of four by four cells at 32 pixels, one block each: text, both encoders, decoder.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain maskvlm:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  on the test artist hidden cells and words are rebuilt better beside their own other side than beside
             another's in 78.6 % [77.3, 80.0] of cases (chance 50 %); text-to-image R@1 of 15.1 % [13.6, 16.8] (chance
             0.05 %)
    """
    block = BlockConfig(width=128, depth=1, heads=4)
    small = sizes.tiny()
    run = clip.tiny()
    return run.replace(
        model=MaskVLMConfig(
            image_format=small.image_format,
            context_length=small.context_length,
            embed_dim=256,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            text=TextTransformerConfig(width=128, depth=1, heads=4, attention="bidirectional", pooling="mean"),
            crossing=block,
            decoder=block,
            positions="learned",
            image_pooling="mean",
            text_pooling="mean",
        ),
        objective=MutualMaskingConfig(label_smoothing=0.3),
        train=run.train.replace(samples_seen=100_000, lr=2e-3, weight_decay=0.3),
        evals=(RetrievalConfig(captions="first"), FillingInConfig()),
    )


def base() -> RunConfig:
    """ViT-B/16 with a mask token and a text tower of BERT-base's size, for a vocabulary of BERT's kind.

    Run:     diptych pretrain maskvlm:base data=DIR
    """
    block = BlockConfig(width=768, depth=3, heads=12)
    image = VisionTransformerConfig(
        patch_size=16, width=768, depth=12, heads=12, norm_eps=1e-6, norm_pre=False, patch_bias=True, mask_token=True
    )
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.5, 1.0), flip=0.5)),
        model=MaskVLMConfig(
            context_length=50,
            image=image,
            text=TextTransformerConfig.bert(768, 12, 12),
            crossing=block,
            decoder=block,
        ),
        objective=MutualMaskingConfig(),
        train=TrainConfig(
            samples_seen=50 * EPOCH,
            global_batch=512,
            lr=3e-4,
            warmup_samples=5 * EPOCH,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(), FillingInConfig(max_items=1000)),
    )
