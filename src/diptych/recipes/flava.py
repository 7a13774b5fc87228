"""FLAVA (Singh et al., 2022, arXiv:2112.04482): images, texts and pairs, six losses, one model for all three.

The paper's values (section 4 and appendix): ViT-B/16 for both sides, six blocks over both, 8,192 records a step, AdamW
(0.9, 0.999), rate 1e-3 after 10,000 steps, decay 0.1, 75 of 196 patches hidden in blocks of 16 or more, 15 % of the
tokens, whole words of pairs. The codes are DALL-E's, of each crop at half its side. Its encoders begin apart: the
image's as DINO on ImageNet, the text's by masked language modelling on CCNews and BookCorpus; then all are trained
together on those and on 70 million pairs, in turns. Here the kinds of records come mixed in each batch.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.filling_in import FillingInConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.codecs.discrete_vae import DiscreteVAEConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.flava import FlavaConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.nn.block import BlockConfig
from diptych.nn.patch_masking import PatchMaskingConfig
from diptych.nn.token_masking import TokenMaskingConfig
from diptych.objectives.flava import FlavaObjectiveConfig
from diptych.recipes import clip, discrete_vae, vqvae
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """Two runs: an image tokenizer of 4 by 4 codes, which sees images at half their side; then FLAVA from fresh
    weights: a conv tower, one block for texts, one over both. Captions are short: twice the paper's share of their
    tokens is hidden, and the contrast weighs three times as much as each of the others.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain flava:tiny data=emoji
    Cost:    about six minutes of two cores
    Expect:  on the test artist text-to-image R@1 of 13.6 % [12.1, 15.2] (chance 0.05 %); hidden patches' codes cost
             0.0099 nats [0.0076, 0.0121] less beside their own words than beside another's, hidden words 0.72
             [0.66, 0.77] less beside their own picture
    """
    small, codec, run = sizes.tiny(), vqvae.tiny(), clip.tiny()
    codec_model = codec.model
    assert isinstance(codec_model, VQVAEConfig)
    codec_model = codec_model.replace(image_format=codec_model.image_format.replace(resolution=16))
    return run.replace(
        before=(
            codec.replace(
                stage="codec",
                model=codec_model,
                train=codec.train.replace(samples_seen=40_000, global_batch=128),
            ),
        ),
        parts={"codec": "stage:codec#"},
        model=FlavaConfig(
            image_format=small.image_format,
            context_length=small.context_length,
            embed_dim=256,
            image=ConvNetConfig(widths=(32, 64, 192), depths=(0, 1, 1), pool_norm="batch"),
            text=TextTransformerConfig(width=192, depth=1, heads=3, attention="bidirectional", pooling="mean"),
            fusion=BlockConfig(width=192, depth=1, heads=3),
            codec=codec_model,
        ),
        objective=FlavaObjectiveConfig(
            image_alone=0.05,
            text_alone=0.05,
            image_masking=PatchMaskingConfig(rate=75 / 196, shape="block", min_block=2),
            text_masking=TokenMaskingConfig(rate=0.3, unit="word"),
            contrast=3.0,
            label_smoothing=0.3,
        ),
        train=run.train.replace(samples_seen=96_000, global_batch=128, lr=2e-3, weight_decay=0.5, freeze=("codec",)),
        evals=(RetrievalConfig(captions="first"), FillingInConfig(patches=0.4, max_items=400)),
    )


def base() -> RunConfig:
    """The paper's model and schedule, 150,000 steps, for a vocabulary of BERT's kind.

    Run:     diptych pretrain flava:base data=DIR parts.codec=CODEC#

    CODEC is a run of `codec`. DIR may hold images and texts without a partner; of pairs a tenth each is read as one
    side alone. Encoders that were trained before come by parts.image_tower=FOLDER and parts.text_tower=FOLDER.
    """
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.9, 1.0), flip=0.5)),
        model=FlavaConfig(image_format=ImageFormat(resize="squash"), context_length=77, codec=_codes()),
        objective=FlavaObjectiveConfig(text_masking=TokenMaskingConfig(unit="word")),
        train=TrainConfig(
            samples_seen=150_000 * 8192,
            global_batch=8192,
            lr=1e-3,
            warmup_samples=10_000 * 8192,
            weight_decay=0.1,
            betas=(0.9, 0.999),
            eps=1e-8,
            precision="bfloat16",
            checkpoint_activations=True,
            freeze=("codec",),
        ),
        evals=(RetrievalConfig(), FillingInConfig(max_items=1000)),
    )


def base_apart() -> RunConfig:
    """What may come before `base`: both encoders, each on its own side of any data, as far as masked modelling goes.

    Run:     diptych pretrain flava:base_apart data=DIR parts.codec=CODEC#; diptych pretrain flava:base data=DIR
             init=FOLDER

    FOLDER is the first run.
    """
    run = base()
    return run.replace(
        objective=FlavaObjectiveConfig(image_alone=0.5, text_alone=0.5, mismatched=0.0),
        train=run.train.replace(samples_seen=50_000 * 8192),
        evals=(FillingInConfig(max_items=1000),),
    )


def codec() -> RunConfig:
    """DALL-E's discrete VAE at 112 pixels: 14 by 14 codes, one for each patch of 16 pixels at 224.

    Run:     diptych pretrain flava:codec data=DIR
    """
    return discrete_vae.paper().replace(model=_codes(), evals=())


def _codes() -> DiscreteVAEConfig:
    return DiscreteVAEConfig(image_format=ImageFormat(resolution=112, resize="squash"))
