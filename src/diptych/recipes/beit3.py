"""BEiT-3 (Wang et al., 2022, arXiv:2208.10442): images, texts and pairs are filled in by one multiway transformer.

The paper's values are those of its section 2.3: a million steps of 2,048 images, 2,048 texts and 2,048 pairs, AdamW
(0.9, 0.98), rate 1e-3 after 10,000 steps, a cosine, decay 0.05, drop path 0.1. Its image tokenizer is that of BEiT v2,
VQ-KD with 8,192 codes; the codec of these recipes is a VQ-VAE of as many, and any image tokenizer with as large a grid
takes its place (``parts.codec=FOLDER#``). The paper's code for pretraining was never published; where the paper is
silent (how an image's loss is weighed against a text's, what hidden tokens become), `objectives/masked_data.py` says
what is done here.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import AugmentConfig
from diptych.data.loader import LoaderConfig
from diptych.evals.filling_in import FillingInConfig
from diptych.evals.retrieval import RetrievalConfig
from diptych.models.beit3 import BEiT3Config
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.models.convnet import ConvNetConfig
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.multiway import MultiwayConfig
from diptych.nn.patch_masking import PatchMaskingConfig
from diptych.nn.quantizer import VectorQuantizerConfig
from diptych.objectives.contrastive import ContrastiveConfig
from diptych.objectives.masked_data import MaskedDataConfig
from diptych.recipes import clip, vqvae
from diptych.train.config import RunConfig, TrainConfig

ONLY_FILLS_IN = ("codec", "code_head", "token_bias", "image_embed.mask_token")
"""What a dual encoder has no use for, where logits of tokens are tied."""


def tiny() -> RunConfig:
    """Three runs: an image tokenizer with 4 by 4 codes; three multiway layers behind a small convolutional stem, which
    fill in images, texts and pairs; and the same as a dual encoder.

    The vectors are means over patches and over tokens, not the first tokens, which few samples teach too slowly.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain beit3:tiny data=emoji
    Cost:    about six minutes of two cores
    Expect:  on the test artist text-to-image R@1 of 1.6 % [1.1, 2.3], R@10 of 12.5 % [11.0, 14.1] (chance 0.05 and
             0.54 %); hidden codes cost 0.0053 nats [0.0031, 0.0074] less beside their own words than beside another's,
             hidden words 0.064 [0.055, 0.073] less beside their own picture
    """
    codec = vqvae.tiny()
    assert isinstance(codec.model, VQVAEConfig)
    codec_model = codec.model.replace(convs=codec.model.convs.replace(multipliers=(1, 2, 2)))
    whole = clip.tiny()
    filled = PatchMaskingConfig(rate=0.4, shape="block", min_block=2)
    model = BEiT3Config(
        image_format=whole.model.image_format,
        context_length=whole.model.context_length,
        blocks=MultiwayConfig(width=192, depth=3, heads=3),
        stem=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
        codec=codec_model,
        embed_dim=192,
        pooling="mean",
        tied=True,
        likelihood_passes=3,
    )
    train = whole.train.replace(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.3)
    return whole.replace(
        before=(
            codec.replace(stage="codec", model=codec_model, train=codec.train.replace(samples_seen=32_000)),
            whole.replace(
                stage="filling",
                model=model.replace(scored_by="likelihood"),
                objective=MaskedDataConfig(image=filled, paired_image=filled),
                parts={"codec": "stage:codec#"},
                train=train.replace(samples_seen=72_000, freeze=("codec",)),
                evals=(FillingInConfig(),),
            ),
        ),
        init="stage:filling",
        model=model,
        train=train.replace(samples_seen=64_000, weight_decay=0.5, freeze=ONLY_FILLS_IN),
    )


def base() -> RunConfig:
    """BEiT-3 base: 12 layers, 768 wide, patches of 16."""
    return _paper(MultiwayConfig(width=768, depth=12, heads=12), 16)


def large() -> RunConfig:
    """BEiT-3 large: 24 layers, 1024 wide, patches of 16."""
    return _paper(MultiwayConfig(width=1024, depth=24, heads=16), 16)


def giant() -> RunConfig:
    """BEiT-3 as in the paper: 40 layers, 1408 wide, MLPs of 6144, patches of 14.

    With attention shared, as in the paper, it has 1.9 G parameters; here, where it is apart, 2.2 G.
    """
    return _paper(MultiwayConfig(width=1408, depth=40, heads=16, mlp_ratio=6144 / 1408), 14)


def base_retrieval() -> RunConfig:
    """`base` as a dual encoder: the published finetuning on COCO, 15 epochs of 113,287 images, but at 224 pixels
    instead of 384, and without rates that decay from layer to layer.

    Run:     diptych pretrain beit3:base_retrieval data=DIR init=FOLDER tokenizer=FOLDER

    FOLDER is a run of `base`.
    """
    run = base()
    assert isinstance(run.model, BEiT3Config)
    return run.replace(
        model=run.model.replace(blocks=run.model.blocks.replace(drop_path=0.2)),
        objective=ContrastiveConfig(),
        train=run.train.replace(
            samples_seen=15 * 113_287,
            global_batch=3072,
            lr=2e-4,
            warmup_samples=3 * 113_287,
            betas=(0.9, 0.999),
            eps=1e-8,
            freeze=("codec", "code_head", "token_head", "token_bias", "image_embed.mask_token"),
        ),
    )


def _paper(blocks: MultiwayConfig, patch_size: int) -> RunConfig:
    """The paper shares attention and fuses the last three layers; its authors' published weights do not, and have
    projections and norms apart. Here it is as published."""
    rows = 224 // patch_size
    return RunConfig(
        data=LoaderConfig(augment=AugmentConfig(crop_scale=(0.5, 1.0))),
        model=BEiT3Config(
            image_format=ImageFormat(resolution=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            context_length=64,
            blocks=blocks.replace(drop_path=0.1),
            patch_size=patch_size,
            embed_dim=blocks.width,
            codec=VQVAEConfig(
                image_format=ImageFormat(resolution=16 * rows, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
                convs=ConvCodecConfig(),  # a code for each 16 pixels
                quantizer=VectorQuantizerConfig(codes=8192, width=32),
            ),
        ),
        objective=MaskedDataConfig(),
        train=TrainConfig(
            samples_seen=1_000_000 * 6144,
            global_batch=6144,
            lr=1e-3,
            warmup_samples=10_000 * 6144,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            precision="bfloat16",
            freeze=("codec",),
        ),
        evals=(RetrievalConfig(),),
    )
