"""Chameleon as Hugging Face transformers keeps it: `ChameleonForConditionalGeneration`.

Its weights of the image tokenizer have no decoder, so that what is read here reads and writes images' codes but makes
no pixels of them, until `parts.codec` brings a codec that does. Its norms of queries and keys are each head's own.

Two things of theirs are not taken over: logits of images' codes, which their forward pass overwrites with the lowest
number there is, so that no image can be learned; and 0.0078 for the pixels' scale, where 1 / 127.5 is meant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.checkpoints.foreign import Foreign, demand, demand_kind, read_object, shapes_of, unsupported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.tokenizer_export import save_for_others
from diptych.checkpoints.transformers_llama import DEFAULTS as LLAMA
from diptych.checkpoints.transformers_llama import IGNORED, language_rules, language_section, language_settings
from diptych.checkpoints.transformers_names import FORMAT, is_model, read_folder_weights, read_tokenizer, write_tensors
from diptych.core.errors import CheckpointError
from diptych.core.files import new_directory, write_json
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.models.causal_transformer import CausalTransformerConfig
from diptych.models.chameleon import Chameleon, ChameleonConfig
from diptych.models.codecs.code_reader import CodeReaderConfig
from diptych.models.codecs.vqvae import VQVAEConfig
from diptych.models.pretrained import Pretrained
from diptych.nn.codec_blocks import ConvCodecConfig
from diptych.nn.quantizer import VectorQuantizerConfig

__all__ = ["FORMAT", "read", "recognises", "write"]

WHO = "transformers' Chameleon"
MARKS = ("<racm3:break>", "<eoss>")
"""Their names of an image's begin and end."""
DIGITS = "ABCDEFGHIJ"
"""How their vocabulary writes a code: IMGIMG, a letter a digit, Z."""
GROUPS = 32
"""Of their group norms."""
EPS = 1e-5
"""Of their norms of queries and keys, whatever that of the others."""

DEFAULTS: dict[str, Any] = {**LLAMA, "vocab_size": 65536, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
CODEC: dict[str, Any] = {
    "embed_dim": 256,
    "num_embeddings": 8192,
    "double_latent": False,
    "latent_channels": 256,
    "resolution": 512,
    "in_channels": 3,
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": None,
    "attn_type": "vanilla",
}
"""What transformers assumes where config.json is silent."""


def recognises(path: Path) -> bool:
    """Whether `path` is a folder of model_type "chameleon"."""
    return is_model(path, "chameleon")


def read(path: Path) -> Foreign:
    """The model and its tokenizer (None if the folder has none), in our terms."""
    theirs = {**DEFAULTS, **read_object(path / "config.json")}
    codec = codec_settings({**CODEC, **(theirs.get("vq_config") or {})})
    language = language_settings({**theirs, "model_type": "llama"})
    if language.norm_eps != EPS:
        raise unsupported("transformers", f"norms with an eps of {language.norm_eps} beside queries' of {EPS}")
    swin = "swin" if theirs.get("swin_norm") else "pre"
    image = (codec.image_format.resolution // codec.convs.stride) ** 2 + 2
    room = theirs["max_position_embeddings"] - image
    if room < 1:
        raise unsupported("transformers", f"an image of {image} tokens in a context of {room + image}")
    config = ChameleonConfig(
        image_format=codec.image_format,
        context_length=room,
        codec=codec,
        language=language.replace(qk_norm="layer_by_head", norm_position=swin),
        codes_within=True,
    )
    weights = read_folder_weights(path)
    if language.tied:
        weights.pop("lm_head.weight", None)
    ids = image_ids(theirs.get("vocabulary_map") or {}, codec.quantizer.codes)
    shapes = shapes_of(config, weights["model.embed_tokens.weight"].shape[0])
    counters = _counters(codec)
    ruled = {n: s for n, s in shapes.items() if n not in counters and n not in ids}
    state = to_ours(_rules(config), weights, ruled, IGNORED)
    return Foreign(config, state | counters | ids, read_tokenizer(path, room))


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a folder that `ChameleonForConditionalGeneration` and `AutoTokenizer` load. Refuses what Chameleon has no
    place for; a codec's decoder is left out, for theirs has none."""
    config, tokenizer = pretrained.model.config, pretrained.tokenizer
    demand_kind(config, (ChameleonConfig,), WHO, "a model of words and images in one vocabulary")
    assert isinstance(config, ChameleonConfig)
    _check(config)
    model = pretrained.model
    assert isinstance(model, Chameleon)
    state = _by_head(model.state_dict(), config.language)
    unknown = {*_counters(config.codec), "code_ids", "mark_ids"} | {n for n in state if n.startswith("codec.decoder.")}
    if any(n.startswith("codec.decoder.") for n in state):
        say("the codec's decoder stays here: transformers' Chameleon reads images and paints none.")
    total = config.context_length + config.max_images * model.image_tokens
    settings = {
        **language_section(config.language, total, model.language.vocab_size),
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        "swin_norm": config.language.norm_position == "swin",
        "vq_config": codec_section(config.codec),
        "vocabulary_map": {
            **{piece: i for i, piece in enumerate(tokenizer.pieces()) if piece},
            **{code_name(n): i for n, i in enumerate(model.code_ids.tolist())},
            **dict(zip(MARKS, model.mark_ids.tolist(), strict=True)),
        },
        "bos_token_id": tokenizer.start_id,
        "eos_token_id": tokenizer.end_id,
        "pad_token_id": tokenizer.pad_id,
    }
    with new_directory(out) as folder:
        kept = {n: t for n, t in state.items() if n not in unknown}
        write_tensors(folder, to_theirs(_rules(config), kept), settings)
        write_json(folder / "preprocessor_config.json", _processor(config.image_format))
        save_for_others(folder, tokenizer)


def code_name(code: int) -> str:
    """Their vocabulary's name of a code."""
    return f"IMGIMG{''.join(DIGITS[int(d)] for d in str(code))}Z"


def image_ids(vocabulary: Mapping[str, int], codes: int) -> dict[str, Tensor]:
    """Our tensors of which ids are codes and marks, by their vocabulary."""
    names = [*(code_name(n) for n in range(codes)), *MARKS]
    missing = [n for n in names if n not in vocabulary]
    if missing:
        raise CheckpointError(
            f"vocabulary_map must name every code of an image, and {' and '.join(MARKS)}; got none for {missing[0]} "
            f"and {len(missing) - 1} more. Fetch config.json again."
        )
    ids = torch.tensor([vocabulary[n] for n in names])
    return {"code_ids": ids[:codes], "mark_ids": ids[codes:]}


def codec_settings(theirs: Mapping[str, Any]) -> CodeReaderConfig:
    """Our settings of the image tokenizer from their section."""
    if theirs["double_latent"] or theirs["in_channels"] != 3 or theirs["attn_type"] not in ("vanilla", "none", None):
        raise unsupported("transformers", "an image tokenizer of two latents, other channels or another attention")
    side, multipliers = theirs["resolution"], tuple(theirs["channel_multiplier"])
    asked = theirs["attn_resolutions"] or ()
    attends = theirs["attn_type"] == "vanilla"
    levels = tuple(i for i in range(len(multipliers)) if side // 2**i in asked) if attends else ()
    return CodeReaderConfig(
        image_format=ImageFormat(resolution=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        convs=ConvCodecConfig(
            width=theirs["base_channels"],
            multipliers=multipliers,
            depth=theirs["num_res_blocks"],
            attention=levels,
            middle="attention" if attends else "blocks",
            groups=GROUPS,
        ),
        latent_channels=theirs["latent_channels"],
        quantizer=VectorQuantizerConfig(codes=theirs["num_embeddings"], width=theirs["embed_dim"]),
    )


def codec_section(config: Any) -> dict[str, Any]:
    """Their section from our settings of a codec."""
    c, side = config.convs, config.image_format.resolution
    return {
        "embed_dim": config.quantizer.width,
        "num_embeddings": config.quantizer.codes,
        "latent_channels": config.latent_channels,
        "resolution": side,
        "base_channels": c.width,
        "channel_multiplier": list(c.multipliers),
        "num_res_blocks": c.depth,
        "attn_resolutions": [side // 2**level for level in c.attention] or None,
        "attn_type": "vanilla" if c.middle == "attention" else "none",
    }


def _rules(config: ChameleonConfig) -> list[Rule]:
    rules = language_rules(config.language, "language", "model", "lm_head")
    for n in range(config.language.depth):
        pairs = [(f"language.blocks.{n}.attention.{x}_norm", f"model.layers.{n}.self_attn.{x}_norm") for x in "qk"]
        rules += same(pairs)
    codec: Any = config.codec
    return rules + codec_rules(codec.convs, "codec", "model.vqmodel")


def codec_rules(convs: ConvCodecConfig, ours: str, theirs: str) -> list[Rule]:
    """Encoder, codebook, and the 1x1 convolutions beside it."""
    us, them = f"{ours}.encoder", f"{theirs}.encoder"
    pairs = [(f"{us}.{n}", f"{them}.{n}") for n in ("conv_in", "norm_out", "conv_out")]
    pairs += [(f"{ours}.to_codebook", f"{theirs}.quant_conv"), (f"{ours}.from_codebook", f"{theirs}.post_quant_conv")]
    entering, rules = (convs.widths[0], *convs.widths[:-1]), []
    for i, (a, b) in enumerate(zip(entering, convs.widths, strict=True)):
        for j in range(convs.depth):
            pairs += _block(f"{us}.levels.{i}.blocks.{j}", f"{them}.down.{i}.block.{j}", a if j == 0 else b, b)
            if i in convs.attention:
                rules += _attention(f"{us}.levels.{i}.attentions.{j}", f"{them}.down.{i}.attn.{j}", b)
        if i < len(convs.widths) - 1:
            pairs.append((f"{us}.downsamples.{i}", f"{them}.down.{i}.downsample.conv"))
    last = convs.widths[-1]
    for n in ("block_1", "block_2"):
        pairs += _block(f"{us}.middle.{n}", f"{them}.mid.{n}", last, last)
    if convs.middle == "attention":
        rules += _attention(f"{us}.middle.attention", f"{them}.mid.attn_1", last)
    return [*same(pairs), *rules, Rule((f"{ours}.quantizer.codebook",), f"{theirs}.quantize.embedding.weight")]


def _block(ours: str, theirs: str, width_in: int, width: int) -> list[tuple[str, str]]:
    names = [(f"{ours}.{x}_{i}", f"{theirs}.{x}{i}") for x in ("norm", "conv") for i in (1, 2)]
    return names + ([(f"{ours}.shortcut", f"{theirs}.nin_shortcut")] if width_in != width else [])


def _attention(ours: str, theirs: str, width: int) -> list[Rule]:
    """Their projections are convolutions of one pixel."""
    names = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "proj_out"}
    rules = [
        Rule((f"{ours}.{a}.weight",), f"{theirs}.{b}.weight", shape=(width, width, 1, 1)) for a, b in names.items()
    ]
    rules += [Rule((f"{ours}.{a}.bias",), f"{theirs}.{b}.bias") for a, b in names.items()]
    return rules + same([(f"{ours}.norm", f"{theirs}.norm")])


def _counters(codec: Any) -> dict[str, Tensor]:
    """What our codebook counts while it learns, which theirs does not: as of one that has not begun."""
    with torch.random.fork_rng(devices=[]):
        state = codec.replace(quantizer=codec.quantizer).build().quantizer.state_dict()
    return {f"codec.quantizer.{n}": t for n, t in state.items() if n != "codebook"}


def _by_head(state: dict[str, Tensor], config: CausalTransformerConfig) -> dict[str, Tensor]:
    """With norms of queries and keys for each head, where one was for all."""
    if config.qk_norm == "layer_by_head":
        return state
    heads = {"q_norm": config.heads, "k_norm": config.kv_heads or config.heads}
    found = dict(state)
    for name, tensor in state.items():
        module = name.split(".")[-2] if "." in name else ""
        if name.startswith("language.") and module in heads:
            found[name] = tensor.expand(heads[module], -1).contiguous()
    return found


def _check(config: ChameleonConfig) -> None:
    """Raise a CheckpointError that lists what Chameleon has no place for."""
    block = {"norm": "rms", "norm_position": ("pre", "swin"), "bias": False, "activation": "swiglu", "norm_eps": EPS}
    rest = {"head_bias": False, "norm_embed": False, "norm_final": True, "layer_scale": 0.0, "cross_attention": "none"}
    demand(config.language, {**block, **rest, "qk_norm": ("layer", "layer_by_head")}, WHO)
    demand_kind(config.codec, (CodeReaderConfig, VQVAEConfig), WHO, "an image tokenizer")
    codec: Any = config.codec
    demand(codec.convs, {"patch": 1, "groups": GROUPS, "middle": ("attention", "blocks")}, WHO)
    demand(codec.quantizer, {"distance": "l2"}, WHO)


def _processor(format_: ImageFormat) -> dict[str, Any]:
    """Their preprocessing: pixels of -1..1."""
    side = {"height": format_.resolution, "width": format_.resolution}
    return {
        "image_processor_type": "ChameleonImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": format_.resolution},
        "do_center_crop": True,
        "crop_size": side,
        "resample": 3 if format_.interpolation == "bicubic" else 2,
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "do_normalize": True,
        "image_mean": [1.0, 1.0, 1.0],
        "image_std": [1.0, 1.0, 1.0],
    }
