"""ALBEF (Li et al., 2021, arXiv:2107.07651): image and text are aligned before they are fused.

The paper's size: section 3.4: ViT-B/16 at 256 pixels, six blocks of text and six that fuse, AdamW, decay 0.02, batches
of 512, 30 epochs of 14 M pairs, a warm-up of 1,000 steps to 1e-4 and a cosine (theirs to 1e-5, ours to 0). Their text
side begins as BERT-base and their tower as DeiT; ours begin fresh.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.albef import AlbefConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.albef import AlbefPretrainingConfig
from diptych.recipes import clip
from diptych.recipes.blip import PAIRS_14M, TOWER
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """clip:tiny's image tower, one block that reads alone and one that fuses, with a teacher and a short queue.

    The tower has batch norm: with pieces of a batch (micro_batch) its statistics are of each piece.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain albef:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  by the cosine text-to-image R@1 of 1.5 % [1.1, 2.2], R@10 of 12.7 % [11.3, 14.3] on the test artist (chance
             0.05 and 0.54 %): far below blip:tiny, which has neither teacher nor queue
    """
    model = sizes.tiny()
    run = clip.tiny()
    return run.replace(
        model=AlbefConfig(
            image_format=model.image_format,
            context_length=model.context_length,
            embed_dim=model.embed_dim,
            image=TOWER,
            image_norm="batch",
            text=BlockConfig(width=192, depth=1, heads=3),
            fusion_depth=1,
            scored_by="matching",
            max_logit_scale=100.0,
        ),
        objective=AlbefPretrainingConfig(
            queue=1024, momentum=0.98, label_smoothing=0.2, alpha=0.2, alpha_samples=50_000
        ),
        train=run.train.replace(samples_seen=130_000),
    )


def base() -> RunConfig:
    """ViT-B/16 at 256 pixels, six and six blocks of BERT's size."""
    tower = VisionTransformerConfig(norm_pre=False, patch_bias=True, norm_eps=1e-6)
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.2, 1.0), flip=0.5)),
        model=AlbefConfig(image_format=ImageFormat(resolution=256), image=tower, scored_by="matching"),
        objective=AlbefPretrainingConfig(alpha_samples=PAIRS_14M),
        train=TrainConfig(
            samples_seen=30 * PAIRS_14M,
            global_batch=512,
            lr=1e-4,
            warmup_samples=1_000 * 512,
            weight_decay=0.02,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
        ),
        evals=(RetrievalConfig(),),
    )
