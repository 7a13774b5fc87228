"""Chameleon (Chameleon team, 2024, arXiv:2405.09818): early fusion, one vocabulary and one loss for words and images.

Of the paper's sizes the blocks, the loss and AdamW's settings are here; its rate falls exponentially, here as a cosine,
and the budget is ours. Its data, of interleaved pages and of text alone, come as mixtures (data/mixture.py).
"""

from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.chameleon import ChameleonConfig
from diptych.models.codecs.codec import CodecConfig
from diptych.objectives.chameleon import MixedModalConfig
from diptych.recipes import dalle, vqvae
from diptych.recipes.dalle import MOVES
from diptych.train.config import RunConfig, TrainConfig

LLAMA = CausalTransformerConfig(activation="swiglu", norm="rms", bias=False, qk_norm="layer", tied=False)
"""The kind of block, to be sized."""


def tiny() -> RunConfig:
    """Two runs: a codec learns 64 codes of 512 for an image of 32 pixels, and two blocks learn words and codes, half
    of the images before their text and half behind it.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain chameleon:tiny data=emoji
             diptych paint RUN "a red apple" --out apple.png; diptych caption RUN apple.png
    Cost:    about six minutes of two cores
    Expect:  a CLIP ranks the text that a picture was painted for 47th of 300 [40, 58] by the median (chance 150, real
             pictures 2nd), painted at painting.guidance=3 for the test artist's names
    """
    before = dalle.tiny().before
    codec = before[0]
    assert isinstance(codec.model, CodecConfig)
    return RunConfig(
        before=before,
        parts={"codec": "stage:codec#"},
        data=LoaderConfig(augment=MOVES),
        model=ChameleonConfig(
            image_format=codec.model.image_format,
            context_length=24,
            codec=codec.model,
            language=LLAMA.replace(width=192, depth=2, heads=3, mlp_ratio=8 / 3),
            guidance=2.0,
        ),
        objective=MixedModalConfig(text_weight=2.0),
        train=TrainConfig(
            samples_seen=48_000,
            global_batch=64,
            lr=2e-3,
            optimizer="muon",
            weight_decay=0.1,
            betas=(0.9, 0.95),
            precision="bfloat16",
            freeze=("codec",),
            val_batches=2,
        ),
        evals=(RetrievalConfig(captions="first", text_prior="removed", most_scored=200),),
    )


def base_7b() -> RunConfig:
    """Chameleon-7B: a norm before each half; 32 blocks, 4,096 wide; 1,024 codes of 8,192 at 512 pixels.

    Run:     diptych pretrain chameleon:base_7b data=DIR
    """
    return _paper(LLAMA.replace(width=4096, depth=32, heads=32, mlp_ratio=11008 / 4096))


def base_34b() -> RunConfig:
    """Chameleon-34B: a norm on what each half adds; 48 blocks, 8,192 wide, keys and values shared by eight heads each.

    Run:     diptych pretrain chameleon:base_34b data=DIR
    """
    wide = LLAMA.replace(width=8192, depth=48, heads=64, kv_heads=8, mlp_ratio=22016 / 8192)
    return _paper(wide.replace(norm_position="swin"))


def _paper(language: CausalTransformerConfig) -> RunConfig:
    """Records of up to 4,096 tokens, of which three images have 3,078."""
    codec = vqvae.chameleon()
    assert isinstance(codec.model, CodecConfig)
    batch = 1_024
    return RunConfig(
        before=(codec.replace(stage="codec"),),
        parts={"codec": "stage:codec#"},
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=ChameleonConfig(
            image_format=codec.model.image_format,
            context_length=1_018,
            codec=codec.model,
            language=language,
            max_images=3,
            guidance=3.0,
        ),
        objective=MixedModalConfig(),
        train=TrainConfig(
            samples_seen=500_000 * batch,
            global_batch=batch,
            lr=1e-4,
            warmup_samples=4_000 * batch,
            weight_decay=0.1,
            betas=(0.9, 0.95),
            eps=1e-5,
            precision="bfloat16",
            checkpoint_activations=True,
            sharding="fsdp",
            freeze=("codec",),
        ),
        evals=(CaptioningConfig(),),
    )
