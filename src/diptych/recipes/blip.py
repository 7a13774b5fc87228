"""BLIP (Li et al., 2022, arXiv:2201.12086): vectors, matching and captions from one text side that is shared by three.

The papers' sizes: section 4.1 and the authors' settings: AdamW, decay 0.05, batches of 2,880 (ViT-B) or 2,400 (ViT-L),
20 epochs of 14 M pairs, warm-up over 3,000 steps, then a rate that falls by a tenth an epoch (here: a cosine). Their
text side begins as BERT-base and their tower as DeiT or ViT; ours begin fresh.
"""

from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.blip import BlipConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.fusion import BERT_BASE
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.objectives.blip import BlipPretrainingConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig, TrainConfig

PAIRS_14M = 14_000_000
TOWER = ConvNetConfig(widths=(32, 64, 128, 256), depths=(0, 1, 1, 1))
"""clip:tiny's tower; the norm of its pooled vector is the model's."""


def tiny() -> RunConfig:
    """clip:tiny's image tower and one block of text in three roles, without teacher and queue: the corpus is as small
    as a queue, and a teacher costs a third pass through the tower.

    The tower has batch norm: with pieces of a batch (micro_batch) its statistics are of each piece.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain blip:tiny data=emoji
    Cost:    about five minutes of two cores
    Expect:  by the cosine text-to-image R@1 of 35.7 % [33.5, 37.9] on the test artist (chance 0.05 %)
    """
    model = sizes.tiny()
    run = clip.tiny()
    return run.replace(
        model=BlipConfig(
            image_format=model.image_format,
            context_length=model.context_length,
            embed_dim=model.embed_dim,
            image=TOWER,
            image_norm="batch",
            text=BlockConfig(width=192, depth=1, heads=3),
            scored_by="matching",
            max_logit_scale=100.0,
        ),
        objective=BlipPretrainingConfig(queue=0, momentum=0.0, label_smoothing=0.3),
        train=run.train.replace(samples_seen=150_000),
    )


def base() -> RunConfig:
    """ViT-B/16 at 224 pixels beside a text side of BERT-base's size."""
    return _paper(VisionTransformerConfig(norm_pre=False, patch_bias=True, norm_eps=1e-6), 2880, 3e-4)


def large() -> RunConfig:
    """ViT-L/16 at 224 pixels beside a text side of BERT-base's size."""
    tower = VisionTransformerConfig(
        width=1024, depth=24, heads=16, norm_pre=False, patch_bias=True, norm_eps=1e-6, drop_path=0.1
    )
    return _paper(tower, 2400, 2e-4)


def _paper(image: VisionTransformerConfig, batch: int, lr: float) -> RunConfig:
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.2, 1.0), flip=0.5)),
        model=BlipConfig(image=image, text=BERT_BASE, scored_by="matching"),
        objective=BlipPretrainingConfig(alpha_samples=2 * PAIRS_14M),
        train=TrainConfig(
            samples_seen=20 * PAIRS_14M,
            global_batch=batch,
            lr=lr,
            warmup_samples=3_000 * batch,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
            checkpoint_activations=True,
        ),
        evals=(RetrievalConfig(),),
    )
