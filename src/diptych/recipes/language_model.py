"""Language models on text alone: the captions, or the questions and answers, of any dataset; images are not read.

Others begin from them: ``parts.language=FOLDER``, or as a stage of their own.
"""

from diptych.data.loader import LoaderConfig
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.language_model import LanguageModelConfig
from diptych.objectives.causal_lm import CausalLMConfig
from diptych.train.config import RunConfig, TrainConfig

TINY = CausalTransformerConfig(width=128, depth=2, heads=4, activation="swiglu", norm="rms", bias=False)
"""Two blocks of LLaMA's kind: what the small recipes of this folder write with."""


def tiny() -> RunConfig:
    """Two blocks, 128 wide, of LLaMA's kind, that learn every token of a text, questions too.

    Run:     diptych corpus get easy_vqa --out easy_vqa; diptych pretrain language_model:tiny data=easy_vqa
    Cost:    twenty seconds of two cores
    Expect:  0.59 nats a token on the questions and answers held out
    """
    return RunConfig(
        model=LanguageModelConfig(context_length=32, language=TINY, learns="all"),
        objective=CausalLMConfig(),
        train=TrainConfig(
            samples_seen=60_000,
            global_batch=128,
            lr=2e-3,
            weight_decay=0.1,
            betas=(0.9, 0.98),
            precision="bfloat16",
        ),
    )


def small() -> RunConfig:
    """GPT-2's smallest size (Radford et al., 2019) with blocks of LLaMA's kind; rate and warm-up are chosen from the
    budget, one of 12.8 M texts.

    Run:     diptych pretrain language_model:small data=DIR
    """
    return RunConfig(
        model=LanguageModelConfig(
            context_length=128,
            language=TINY.replace(width=768, depth=12, heads=12, mlp_ratio=8 / 3),
            learns="all",
        ),
        objective=CausalLMConfig(),
        data=LoaderConfig(),
        train=TrainConfig(
            samples_seen=12_800_000,
            global_batch=1024,
            weight_decay=0.1,
            betas=(0.9, 0.95),
            precision="bfloat16",
        ),
    )
