"""LLaVA (Liu et al., 2023: 1.0 arXiv:2304.08485, 1.5 arXiv:2310.03744): an image's tokens, projected, inside a
conversation. First the projection alone learns from captions, then the language model learns too, from instructions;
only answers bear loss. The image tower never changes.

At the papers' sizes image tower and language model come from elsewhere and are set in the first stage:

    diptych pretrain llava:v15_7b data=INSTRUCTIONS align.data.path=CAPTIONS align.parts.image_tower=CLIP
            align.model.language=hf:VICUNA align.tokenizer=VICUNA

CLIP is CLIP's ViT-L/14 converted into ours; VICUNA a folder of transformers, or converted too: align.parts.language=.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.vqa import VqaConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.connector import ConnectorConfig
from diptych.models.connectors.linear import LinearConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.recipes import git, language_model
from diptych.train.config import RunConfig, TrainConfig

LLAMA_7B = CausalTransformerConfig(
    width=4096,
    depth=32,
    heads=32,
    mlp_ratio=11008 / 4096,
    activation="swiglu",
    norm="rms",
    norm_eps=1e-6,
    bias=False,
    tied=False,
)


def tiny() -> RunConfig:
    """Three runs: language_model:tiny learns questions and answers, blind; a small residual conv tower from scratch and
    the projection learn to answer through it while it rests; then everything learns.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain llava:tiny data=easy_vqa
    Cost:    about six minutes of two cores, all three runs
    Expect:  99.6 % [99.4, 99.8] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    align = RunConfig(
        stage="align",
        parts={"language": "stage:language"},
        data=LoaderConfig(augment=git.SHIFTS),
        model=PrefixLMConfig(
            image_format=git.SHAPES,
            context_length=32,
            embed_dim=128,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            language=language_model.TINY,
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=60_000,
            global_batch=128,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            channels_last=True,
            only=("image", "connector"),
        ),
    )
    return align.replace(
        stage="",
        before=(language_model.tiny().replace(stage="language"), align),
        init="stage:align",
        parts={},
        train=align.train.replace(samples_seen=180_000, only=()),
        evals=(VqaConfig(),),
    )


def v1_7b() -> RunConfig:
    """LLaVA 1.0: CLIP's ViT-L/14 at 224 pixels, a linear map, LLaMA-7B. Captions: 595 k, once, 2e-3 in batches of 128.
    Instructions: 158 k, three times, 2e-5 in batches of 32.
    """
    return _paper(
        LinearConfig(), 224, align=(595_000, 128, 2e-3), instruct=(3 * 158_000, 32, 2e-5), evals=(CaptioningConfig(),)
    )


def v15_7b() -> RunConfig:
    """LLaVA 1.5: CLIP's ViT-L/14 at 336 pixels, an MLP, LLaMA-7B. Captions: 558 k, once, 1e-3 in batches of 256.
    Instructions: 665 k, once, 2e-5 in batches of 128. Images are padded to squares.
    """
    return _paper(
        MLPConnectorConfig(), 336, align=(558_000, 256, 1e-3), instruct=(665_000, 128, 2e-5), evals=(VqaConfig(),)
    )


def _paper(
    connector: ConnectorConfig,
    resolution: int,
    align: tuple[int, int, float],
    instruct: tuple[int, int, float],
    evals: tuple[CaptioningConfig | VqaConfig, ...],
) -> RunConfig:
    """`align`, `instruct`: samples, batch and rate of both stages. A warm-up of 3 %, a cosine to 0 and no decay."""
    image = VisionTransformerConfig(
        patch_size=14, width=1024, depth=24, heads=16, activation="quick_gelu", projection="none"
    )

    def stage(samples: int, batch: int, lr: float, **chosen: tuple[str, ...]) -> TrainConfig:
        return TrainConfig(
            samples_seen=samples,
            global_batch=batch,
            lr=lr,
            warmup_samples=round(0.03 * samples),
            weight_decay=0.0,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
            checkpoint_activations=True,
            sharding="fsdp",
            frozen="live",
            **chosen,
        )

    first = RunConfig(
        stage="align",
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=PrefixLMConfig(
            image_format=ImageFormat(resolution=resolution, resize="pad" if resolution == 336 else "crop"),
            context_length=2048 - (resolution // 14) ** 2,
            embed_dim=1024,
            image=image,
            reading=ImageReadingConfig(layer=-2, cls=False),
            connector=connector,
            language=LLAMA_7B,
        ),
        objective=CausalLMConfig(),
        train=stage(*align, only=("connector",)),
    )
    return first.replace(
        stage="", before=(first,), init="stage:align", train=stage(*instruct, freeze=("image",)), evals=evals
    )
