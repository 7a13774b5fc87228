"""Frozen (Tsimpoukelli et al., 2021, arXiv:2106.13884): an image tower learns to speak to a language model that does
not change, by two vectors before the text. Gradients flow through the language model, to what lies before it.
"""

from diptych.core.image_format import ImageFormat
from diptych.data.augment import NO_AUGMENTATION
from diptych.data.loader import LoaderConfig
from diptych.evals.captioning import CaptioningConfig
from diptych.evals.vqa import VqaConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.connectors.prefix import PrefixConfig
from diptych.models.convnet import ConvNetConfig
from diptych.models.image_reading import ImageReadingConfig
from diptych.models.modified_resnet import ModifiedResNetConfig
from diptych.models.prefix_lm import PrefixLMConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.recipes import git, language_model
from diptych.train.config import RunConfig, TrainConfig


def tiny() -> RunConfig:
    """Two runs: language_model:tiny learns questions and answers, blind; then it is frozen, and a small residual conv
    tower from scratch learns to change its answers.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain frozen:tiny data=easy_vqa
    Cost:    about six minutes of two cores
    Expect:  87.0 % [86.3, 87.6] of easy_vqa's test questions; the questions alone tell 67.0 %
    """
    return RunConfig(
        before=(language_model.tiny().replace(stage="language"),),
        parts={"language": "stage:language"},
        data=LoaderConfig(augment=git.SHIFTS),
        model=PrefixLMConfig(
            image_format=git.SHAPES,
            context_length=32,
            embed_dim=128,
            image=ConvNetConfig(widths=(32, 64, 128), depths=(0, 1, 1)),
            reading=ImageReadingConfig(readout="pooled"),
            connector=PrefixConfig(count=2),
            language=language_model.TINY,
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=400_000,
            global_batch=128,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
            channels_last=True,
            freeze=("language",),
        ),
        evals=(VqaConfig(),),
    )


def paper() -> RunConfig:
    """A ResNet-50 at 224 pixels, from scratch, before a language model of 7 B parameters. The paper's: Adam
    (0.9, 0.95), 3e-4 throughout, batches of 128, images padded to squares. Its ResNet is NF-ResNet-50 and its language
    model's positions are relative; ours are CLIP's ResNet-50 and rotary.

    Run:     diptych pretrain frozen:paper data=DIR parts.language=FOLDER, or model.language=hf:FOLDER tokenizer=FOLDER

    It stops by validation in the paper; here after 3.3 M pairs, once through Conceptual Captions.
    """
    return RunConfig(
        data=LoaderConfig(augment=NO_AUGMENTATION),
        model=PrefixLMConfig(
            image_format=ImageFormat(resolution=224, resize="pad"),
            context_length=64,
            embed_dim=2048,
            image=ModifiedResNetConfig(stem_width=64, depths=(3, 4, 6, 3)),
            reading=ImageReadingConfig(readout="pooled"),
            connector=PrefixConfig(count=2),
            language=CausalTransformerConfig(width=4096, depth=32, heads=32),
        ),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=3_300_000,
            global_batch=128,
            lr=3e-4,
            warmup_samples=0,
            schedule="constant",
            weight_decay=0.0,
            betas=(0.9, 0.95),
            eps=1e-8,
            precision="bfloat16",
            checkpoint_activations=True,
            freeze=("language",),
        ),
        evals=(CaptioningConfig(),),
    )
