"""BLIP as Hugging Face transformers keeps it: a class for captions, one for retrieval, one for answers.

None of them is a whole pretrained BLIP. What writes captions (`BlipForConditionalGeneration`) and what compares and
judges (`BlipForImageTextRetrieval`) are models of ours by their `roles`, and are read and written. What answers
(`BlipForQuestionAnswering`) has a text side for questions and another for answers, but nothing that compares or judges:
its rules are here (`answering_rules`), a folder of it is no whole model of ours.

Their retrieval reads a text as it is given, with [CLS] first, where the authors' puts [ENC] in its place, the token
behind [DEC] (`bos_token_id`); ours does that by itself. It has no temperature: there training would begin anew. Their
answers see the padding of questions, since the mask of their cross-attention is lost on the way (transformers 5.23);
ours do not.
"""

from pathlib import Path
from typing import Any, Literal

import torch

from diptych.checkpoints.foreign import (
    PLAIN_BLOCK,
    Foreign,
    demand,
    demand_kind,
    read_object,
    shapes_of,
    square,
)
from diptych.checkpoints.foreign import unsupported as not_supported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_blip2 import vision_rules, vision_settings
from diptych.checkpoints.transformers_names import (
    FORMAT,
    IGNORED,
    KNOWN_ACTIVATIONS,
    bert_block_rules,
    bert_section,
    block_section,
    block_settings,
    is_model,
    read_folder_weights,
    read_image_format,
    read_tokenizer,
    section,
    write_folder,
)
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.models.blip import BlipConfig
from diptych.models.pretrained import Pretrained
from diptych.models.vision_transformer import VisionTransformerConfig
from diptych.nn.block import BlockConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' BLIP"
ROLES: dict[str, Literal["writes", "compares"]] = {
    "BlipForConditionalGeneration": "writes",
    "BlipForImageTextRetrieval": "compares",
}
TIED = r"^text_decoder\.cls\.predictions\.decoder\.(weight|bias)$"
"""What older folders hold twice."""
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
}
TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_size": 768,
    "encoder_hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "vocab_size": 30524,
    "bos_token_id": 30522,
    "tie_word_embeddings": True,
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "blip"."""
    return is_model(path, "blip")


def read(path: Path) -> Foreign:
    """The captioner or the comparer, its tokenizer (None if there is none) and its preprocessing, in our terms."""
    settings = read_object(path / "config.json")
    given = read_folder_weights(path)
    role = _role(settings, given.keys())
    config = settings_of(settings, role)
    format_ = read_image_format(path, config.image_format.resolution, ImageFormat(resize="squash"))
    config = config.replace(image_format=format_)
    rows = next(t for n, t in given.items() if n.endswith("embeddings.word_embeddings.weight")).shape[0]
    shapes = shapes_of(config, rows)
    if role == "compares":
        shapes.pop("log_logit_scale")
    state = to_ours(rules(config), given, shapes, rf"{IGNORED}|{TIED}")
    if role == "compares":
        say(f"{path} has no temperature, as {WHO} keeps none; for further training it begins at 1 / 0.07.")
        state["log_logit_scale"] = torch.tensor(config.init_logit_scale)
    return Foreign(config, state, read_tokenizer(path, config.context_length))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `BlipForConditionalGeneration` or `BlipForImageTextRetrieval` loads, by the model's roles."""
    config, model, words = _check_writable(pretrained.model.config), pretrained.model, pretrained.tokenizer
    image, text = config.image, config.text
    assert isinstance(image, VisionTransformerConfig)
    settings = {
        "model_type": "blip",
        "architectures": [name for name, role in ROLES.items() if role == config.roles],
        "image_text_hidden_size": config.embed_dim,
        "text_config": {
            "model_type": "blip_text_model",
            **bert_section(text),
            "encoder_hidden_size": image.width,
            "vocab_size": model.vocab_size,
            "max_position_embeddings": config.context_length,
            "bos_token_id": config.write_id if config.roles == "writes" else config.match_id - 1,
            "sep_token_id": words.end_id,
            "eos_token_id": words.end_id,
            "pad_token_id": words.pad_id,
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "blip_vision_model",
            **block_section(image),
            "image_size": config.image_format.resolution,
            "patch_size": image.patch_size,
        },
    }
    state = {n: t for n, t in model.state_dict().items() if n != "log_logit_scale"}
    with new_directory(out) as folder:
        write_folder(folder, to_theirs(rules(config), state), settings, config.image_format, "Blip")
        save_for_others(folder, words)


def settings_of(theirs: dict[str, Any], role: Literal["all", "writes", "compares"]) -> BlipConfig:
    """Our settings from a config.json, for the role; "all": with a text side of its own for answers."""
    vision = section(theirs, "vision_config", VISION_DEFAULTS)
    text = section(theirs, "text_config", TEXT_DEFAULTS)
    bos, rows = text["bos_token_id"], text["vocab_size"]
    if text["encoder_hidden_size"] != vision["hidden_size"] and role != "all":
        raise not_supported(
            "transformers",
            f"a text that looks at {text['encoder_hidden_size']} wide tokens of an image of {vision['hidden_size']}",
        )
    if not text["tie_word_embeddings"] and role != "compares":
        raise not_supported("transformers", "logits that are not tied to the token embeddings")
    if role != "writes" and bos + 1 >= rows:
        raise not_supported("transformers", f"no token behind [DEC] ({bos}) to judge by, its vocabulary being {rows}")
    return BlipConfig(
        image=vision_settings(vision).replace(projection="linear"),
        embed_dim=theirs.get("image_text_hidden_size", 256),
        text=BlockConfig(**block_settings(text), norm_position="post"),
        roles=role,
        shares=role != "all",
        write_id=-1 if role == "compares" else bos,
        match_id=-1 if role == "writes" else bos + 1,
        context_length=text["max_position_embeddings"],
        image_format=ImageFormat(resolution=square(vision["image_size"], "image_size"), resize="squash"),
        scored_by="matching" if role == "compares" else "similarity",
    )


def rules(config: BlipConfig) -> list[Rule]:
    """What writes captions, or what compares and judges."""
    assert isinstance(config.image, VisionTransformerConfig)
    if config.roles == "writes":
        text = [*text_rules(config.text, "text", "text_decoder.bert"), *_head_rules()]
    else:
        heads = [("image_projection", "vision_proj"), ("text_projection", "text_proj"), ("matching_head", "itm_head")]
        text = [*text_rules(config.text, "text", "text_encoder"), *same(heads)]
    return [*vision_rules(config.image), *text]


def answering_rules(config: BlipConfig) -> list[Rule]:
    """What `BlipForQuestionAnswering` holds of a model whose two text sides share nothing."""
    assert isinstance(config.image, VisionTransformerConfig)
    asked = text_rules(config.text, "text", "text_encoder")
    answered = text_rules(config.text, "writing_text", "text_decoder.bert")
    return [*vision_rules(config.image), *asked, *answered, *_head_rules()]


def text_rules(config: BlockConfig, ours: str, theirs: str) -> list[Rule]:
    """A text side."""
    words = f"{theirs}.embeddings"
    found = [
        Rule((f"{ours}.token_embed.weight",), f"{words}.word_embeddings.weight"),
        Rule((f"{ours}.position_embed",), f"{words}.position_embeddings.weight"),
        *same([(f"{ours}.norm_embed", f"{words}.LayerNorm")]),
    ]
    for n in range(config.depth):
        found += bert_block_rules(f"{ours}.blocks.{n}", f"{theirs}.encoder.layer.{n}", crosses=True)
    return found


def _head_rules() -> list[Rule]:
    them = "text_decoder.cls.predictions"
    return [
        *same([("writing_head.fc", f"{them}.transform.dense"), ("writing_head.norm", f"{them}.transform.LayerNorm")]),
        Rule(("head_bias",), f"{them}.bias"),
    ]


def _role(settings: dict[str, Any], names: Any) -> Literal["writes", "compares"]:
    """What a folder is for, by the class that it names, or else by what it holds."""
    for name in settings.get("architectures") or ():
        if name in ROLES:
            return ROLES[name]
    reads, writes = (any(n.startswith(f"text_{half}.") for n in names) for half in ("encoder", "decoder"))
    if reads == writes:
        what = "a text side for questions and one for answers, and nothing that compares" if reads else "neither"
        raise not_supported("transformers", f"{what} ({', '.join(settings.get('architectures') or ['no class'])})")
    return "compares" if reads else "writes"


def _check_writable(config: object) -> BlipConfig:
    demand_kind(config, (BlipConfig,), WHO, "a BLIP")
    assert isinstance(config, BlipConfig)
    demand_kind(config.image, (VisionTransformerConfig,), WHO, "an image tower")
    demand(config, {"roles": ("writes", "compares"), "image_norm": "none"}, WHO)
    if (config.write_id if config.roles == "writes" else config.match_id - 1) < 0:
        name = "write_id" if config.roles == "writes" else "match_id"
        raise CheckpointError(
            f"{WHO} must be given a model whose {name} is a token of the vocabulary; got {getattr(config, name)}. "
            f"Train with model.{name} and a tokenizer that has it."
        )
    tower = {"pooling": "cls", "norm_pre": False, "patch_bias": True, "layer_scale": 0.0}
    activations = {"activation": KNOWN_ACTIVATIONS}
    demand(config.image, {**PLAIN_BLOCK, **tower, **activations}, WHO)
    block = {**PLAIN_BLOCK, "norm_position": "post", "layer_scale": 0.0, "kv_heads": 0}
    demand(config.text, {**block, **activations}, WHO)
    return config
