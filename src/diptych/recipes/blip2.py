"""BLIP-2 (Li et al., 2023, arXiv:2301.12597): a Q-Former learns to ask a frozen image tower what texts say of images
(stage 1), then to tell it to a frozen language model (stage 2).

The paper's values are those of its section 3.4: AdamW (0.9, 0.98), decay 0.05, a cosine from 1e-4 after 2,000 steps
(LAVIS warms stage 1 up for 5,000). Ours falls to 0, where theirs stops at 1e-5 and 5e-5. Their Q-Former begins as
BERT-base and has its dropout of 0.1; ours begins fresh, without. The image tower is EVA's ViT-g without its last block;
the norm behind it, which LAVIS trains, is frozen with it here.
"""

import json

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION, AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.blip2 import Blip2Config
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.mlp import MLPConnectorConfig
from diptych.models.connectors.qformer import QFormerConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.hf_language import HFLanguageConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.objectives.query_alignment import QueryAlignmentConfig
from diptych.train.config import RunConfig, TrainConfig

EVA_G = VisionTransformerConfig(
    width=1408,
    depth=39,
    heads=16,
    mlp_ratio=6144 / 1408,
    patch_size=14,
    norm_eps=1e-6,
    norm_pre=False,
    patch_bias=True,
    projection="none",
)
BERT_BASE = QFormerConfig(queries=32, width=768, depth=12, heads=12)
OPT_2_7B = json.dumps(
    {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": 2560,
        "word_embed_proj_dim": 2560,
        "ffn_dim": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
)


def tiny() -> RunConfig:
    """Four runs: a small image tower learns to see by captioning, since no pretrained tower is at hand at this size;
    two blocks learn to write captions, blind; a Q-Former learns stage 1 before the frozen tower; then tower and
    language model rest, and the queries, which begin as stage 1 left them, learn to tell the one what the other sees.

    Run:     diptych corpus get scenes --out scenes; diptych pretrain blip2:tiny data=scenes
    Cost:    about nine minutes of two cores
    Expect:  CIDEr-D of 0.69 [0.65, 0.74] on the test scenes, 0.17 before blank pictures, 0.25 with pictures exchanged
    """
    words = CausalTransformerConfig(width=128, depth=2, heads=4, activation="swiglu", norm="rms", bias=False)
    sees = ImageFormat(resolution=48, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    image = ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1))
    asks = QFormerConfig(queries=8, width=128, depth=2, heads=4)
    data = LoaderConfig(augment=NO_AUGMENTATION)
    train = TrainConfig(
        samples_seen=40_000,
        global_batch=128,
        lr=1e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        precision="bfloat16",
        val_batches=2,
    )
    return RunConfig(
        before=(
            RunConfig(
                stage="seeing",
                data=data.replace(augment=AugmentConfig(crop_scale=None, zoom=(0.9, 1.1), translate=0.05)),
                model=PrefixLMConfig(
                    image_format=sees,
                    context_length=32,
                    embed_dim=128,
                    image=image,
                    connector=MLPConnectorConfig(),
                    language=words,
                ),
                objective=CausalLMConfig(),
                train=train.replace(samples_seen=100_000, lr=2e-3, weight_decay=0.1, channels_last=True),
            ),
            RunConfig(
                stage="language",
                data=data,
                model=LanguageModelConfig(context_length=32, language=words),
                objective=CausalLMConfig(),
                train=train.replace(lr=3e-3),
            ),
            RunConfig(
                stage="asking",
                data=data,
                model=Blip2Config(
                    image_format=sees, context_length=32, embed_dim=128, image=image, qformer=asks, shared_dim=64
                ),
                objective=QueryAlignmentConfig(),
                parts={"image_tower": "stage:seeing"},
                train=train.replace(samples_seen=100_000, freeze=("image",)),
            ),
        ),
        parts={"language": "stage:language", "image_tower": "stage:seeing", "connector": "stage:asking#qformer"},
        data=data,
        model=PrefixLMConfig(
            image_format=sees, context_length=32, embed_dim=128, image=image, connector=asks, language=words
        ),
        objective=CausalLMConfig(),
        train=train.replace(samples_seen=200_000, lr=3e-3, freeze=("image", "language")),
        evals=(CaptioningConfig(),),
    )


def stage1() -> RunConfig:
    """Stage 1 with EVA's ViT-g: 250,000 steps of 1,680 pairs (the paper takes 2,320 with ViT-L).

    Run:     diptych pretrain blip2:stage1 data=DIR parts.image_tower=FOLDER

    FOLDER is any model of ours or converted into ours, whose image tower's weights and settings are taken: of
    transformers' BLIP-2, say.
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.5, 1.0), flip=0.5)),
        model=Blip2Config(
            context_length=32,
            embed_dim=1408,
            image=EVA_G,
            qformer=BERT_BASE,
            shared_dim=256,
            scored_by="similarity",  # a pass for every pair is too dear while training
        ),
        objective=QueryAlignmentConfig(),
        train=TrainConfig(
            samples_seen=250_000 * 1680,
            global_batch=1680,
            lr=1e-4,
            warmup_samples=2_000 * 1680,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            precision="bfloat16",
            checkpoint_activations=True,
            freeze=("image",),
            frozen="live",
        ),
        evals=(RetrievalConfig(scored_by="score"),),
    )


def opt_2_7b() -> RunConfig:
    """Stage 2 with EVA's ViT-g and OPT-2.7B, both frozen: 80,000 steps of 1,920 pairs (with OPT; 1,520 with FlanT5).

    Run:     diptych pretrain blip2:opt_2_7b data=DIR parts.image_tower=STAGE1 parts.connector=STAGE1#qformer
             model.language=hf:OPT tokenizer=OPT

    STAGE1 is the folder of a run of stage 1, OPT a folder with OPT-2.7B as transformers saves it.
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.5, 1.0), flip=0.5)),
        model=PrefixLMConfig(
            context_length=32,
            embed_dim=1408,
            image=EVA_G,
            connector=BERT_BASE,
            language=HFLanguageConfig(settings=OPT_2_7B),
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=80_000 * 1920,
            global_batch=1920,
            lr=1e-4,
            warmup_samples=2_000 * 1920,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            precision="bfloat16",
            checkpoint_activations=True,
            freeze=("image", "language"),
            frozen="live",
        ),
        evals=(CaptioningConfig(beams=5),),
    )
