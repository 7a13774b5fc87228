"""Flamingo (Alayrac et al., 2022, arXiv:2204.14198): a frozen language model looks aside at images.

In the papers' sizes the image tower is frozen too, and both come from elsewhere: ``parts.image_tower=FOLDER
parts.language=FOLDER`` (of models of ours, or converted), or ``model.language=hf:FOLDER``. The resampler and the gated
cross-attention train. Depths and widths of the language models, and where cross-attention stands, are the paper's
(table 1 and appendix B.1), as are AdamW's (0.9, 0.999), 1e-4 after 5,000 steps, decay of 0.1, none of the resampler,
and gradients of norm 1 at most. What is not public is as in OpenFlamingo (Awadalla et al., 2023, arXiv:2308.01390):
CLIP's ViT-L/14 without its last norm for an NFNet-F6, GELU for squared ReLU, attention of 8 heads of 64, and 180 M
sequences. The batch is ours.
"""

from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.vqa import VqaConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.perceiver import PerceiverConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.flamingo import FlamingoConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.perceiver import GatedCrossAttentionConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.recipes import git, language_model
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """language_model:tiny learns questions and answers, blind; then it is frozen, and a small residual conv tower, a
    resampler and gates learn to answer through it. The tower is not frozen: it begins from nothing, so it learns with
    them. Gates learn ten times as fast as the rest, or a short run would wait for them.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain flamingo:tiny data=easy_vqa
    Cost:    about six minutes of two cores
    Expect:  93.2 % [92.7, 93.7] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    return RunConfig(
        before=(language_model.tiny().replace(stage="language"),),
        parts={"language": "stage:language"},
        data=LoaderConfig(augment=git.SHIFTS),
        model=FlamingoConfig(
            image_format=git.SHAPES,
            context_length=32,
            embed_dim=128,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            connector=PerceiverConfig(latents=8, depth=1, heads=4, head_width=32),
            language=language_model.TINY,
            cross=GatedCrossAttentionConfig(heads=4, head_width=32),
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=240_000,
            global_batch=64,
            lr=1.5e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            channels_last=True,
            freeze=("language",),
            rates=(("gates.*.gate", 10.0), ("gates.*.mlp_gate", 10.0)),
        ),
        evals=(VqaConfig(),),
    )


def paper_3b() -> RunConfig:
    """A language model of 1.4 B parameters, every block of which looks at images.

    Run:     diptych pretrain flamingo:paper_3b data=PAGES parts.image_tower=FOLDER parts.language=FOLDER
    """
    return _paper(width=2048, depth=24, heads=16, cross_every=1)


def paper_9b() -> RunConfig:
    """A language model of 7 B parameters, every fourth block of which looks at images. Run: as `paper_3b`."""
    return _paper(width=4096, depth=40, heads=32, cross_every=4)


def paper_80b() -> RunConfig:
    """A language model of 70 B parameters, every seventh block of which looks at images. Run: as `paper_3b`."""
    return _paper(width=8192, depth=80, heads=64, cross_every=7)


def _paper(width: int, depth: int, heads: int, cross_every: int) -> RunConfig:
    batch = 512
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION, max_images=5),
        model=FlamingoConfig(
            context_length=256,
            embed_dim=768,
            image=VisionTransformerConfig(patch_size=14, width=1024, depth=24, heads=16, activation="quick_gelu"),
            reading=ImageReadingConfig(cls=False, norm=False),
            connector=PerceiverConfig(latents=64, depth=6, heads=8, head_width=64),
            language=CausalTransformerConfig(width=width, depth=depth, heads=heads),
            cross=GatedCrossAttentionConfig(heads=8, head_width=64),
            cross_every=cross_every,
            foretells=True,
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=180_000_000,
            global_batch=batch,
            lr=1e-4,
            warmup_samples=5_000 * batch,
            schedule="constant",
            weight_decay=0.1,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
            sharding="fsdp",
            checkpoint_activations=True,
            freeze=("image", "language"),
            frozen="live",
        ),
        evals=(CaptioningConfig(), VqaConfig()),
    )
