"""MiniGPT-4 (Zhu et al., 2023, arXiv:2304.10592) and MiniGPT-v2 (Chen et al., 2023, arXiv:2310.09478): one linear map
between a trained image tower and a trained language model, neither of which changes.

MiniGPT-4 lets BLIP-2's Q-Former ask the image, and leaves that as it is too; v2 puts each four tokens that follow each
other side by side, and lets low-rank adapters of the language model learn. Their image tower is EVA's ViT-g without its
last block. Steps, batches and rates are the papers', the rest is their code's.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.vqa import VqaConfig
from diptych.models.connectors.connector import ConnectorConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.connectors.pixel_shuffle import PixelShuffleConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.recipes import git, language_model
from diptych.recipes.blip2 import BERT_BASE, EVA_G
from diptych.recipes.llava import LLAMA_7B
from diptych.train.config import RunConfig, TrainConfig
from diptych.train.lora import LoraConfig


def tiny() -> RunConfig:
    """Two runs: a small residual conv tower and a language model learn together, from scratch, with an MLP between
    them; then both rest, and a fresh linear map of each four tokens has to find how the one is to speak to the other.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain minigpt4:tiny data=easy_vqa
    Cost:    about four minutes of two cores, both runs
    Expect:  87.0 % [86.3, 87.8] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    seeing = RunConfig(
        stage="seeing",
        data=LoaderConfig(augment=git.SHIFTS),
        model=PrefixLMConfig(
            image_format=git.SHAPES,
            context_length=32,
            embed_dim=128,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            connector=MLPConnectorConfig(),
            language=language_model.TINY,
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=200_000,
            global_batch=128,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            channels_last=True,
        ),
    )
    return seeing.replace(
        stage="",
        before=(seeing,),
        parts={"image_tower": "stage:seeing", "language": "stage:seeing"},
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=seeing.model.replace(connector=PixelShuffleConfig(factor=2, neighbours="row")),
        train=seeing.train.replace(samples_seen=100_000, only=("connector",)),
        evals=(VqaConfig(),),
    )


def paper() -> RunConfig:
    """MiniGPT-4 with LLaMA-7B's size (Vicuna). Captions: 20,000 steps of 256, 1e-4 after 5,000; descriptions: 1,000
    steps of 12, 3e-5 after 200. Rates fall as a cosine: to 0 here, to 8e-5 and 1e-5 in its code.

    Run:     diptych pretrain minigpt4:paper data=DESCRIPTIONS align.data.path=CAPTIONS align.parts.image_tower=BLIP2
             align.parts.connector=BLIP2 align.model.language=hf:VICUNA align.tokenizer=VICUNA

    BLIP2 is a folder of its second stage, converted or trained; the projection into the language model begins anew.
    """
    return _paper(
        connector=BERT_BASE,
        resolution=224,
        tokens=32,
        align=(20_000 * 256, 256, 1e-4, 5_000 * 256),
        instruct=(1_000 * 12, 12, 3e-5, 200 * 12),
        only=("connector.proj.*",),
    )


def v2() -> RunConfig:
    """MiniGPT-v2 with LLaMA-7B's size: 448 pixels, 1,024 tokens that become 256, adapters of rank 64. Its three stages:
    400,000 steps of 96 at 1e-4, 50,000 of 64 at 1e-5, 35,000 of 24 at 1e-5; the warm-up of 1,000 steps is its code's.

    Run:     diptych pretrain minigpt4:v2 data=INSTRUCTIONS tasks.data.path=TASKS align.data.path=NOISY
             align.parts.image_tower=EVA align.model.language=hf:LLAMA align.tokenizer=LLAMA
    """
    run = _paper(
        connector=PixelShuffleConfig(factor=2, neighbours="row"),
        resolution=448,
        tokens=256,
        align=(400_000 * 96, 96, 1e-4, 1_000 * 96),
        instruct=(35_000 * 24, 24, 1e-5, 1_000 * 24),
        only=("connector",),
    )
    lora = LoraConfig(rank=64, alpha=16, targets=("*.q_proj", "*.v_proj"), parts=("language",))
    align = run.before[0].replace(train=run.before[0].train.replace(lora=lora))
    middle = {"samples_seen": 50_000 * 64, "global_batch": 64, "lr": 1e-5, "warmup_samples": 1_000 * 64}
    tasks = align.replace(stage="tasks", init="stage:align", train=align.train.replace(**middle))
    return run.replace(before=(align, tasks), init="stage:tasks", train=run.train.replace(lora=lora))


def _paper(
    connector: ConnectorConfig,
    resolution: int,
    tokens: int,
    align: tuple[int, int, float, int],
    instruct: tuple[int, int, float, int],
    only: tuple[str, ...],
) -> RunConfig:
    """`align`, `instruct`: samples, batch, rate and warm-up of both stages."""

    def stage(samples: int, batch: int, lr: float, warmup: int) -> TrainConfig:
        return TrainConfig(
            samples_seen=samples,
            global_batch=batch,
            lr=lr,
            warmup_samples=warmup,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
            checkpoint_activations=True,
            frozen="live",
            only=only,
        )

    first = RunConfig(
        stage="align",
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=PrefixLMConfig(
            image_format=ImageFormat(resolution=resolution, resize="squash"),
            context_length=1024 - tokens,
            embed_dim=1408,
            image=EVA_G,
            reading=ImageReadingConfig(cls=isinstance(connector, type(BERT_BASE))),
            connector=connector,
            language=LLAMA_7B,
        ),
        objective=CausalLMConfig(),
        train=stage(*align),
    )
    return first.replace(
        stage="", before=(first,), init="stage:align", train=stage(*instruct), evals=(CaptioningConfig(),)
    )
