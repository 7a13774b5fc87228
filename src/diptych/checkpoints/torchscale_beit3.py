"""BEiT-3 as its authors publish it: one file with the tensors of torchscale's `BEiT3`, and of a task's head.

Their names begin with ``beit3.``. Files finetuned for retrieval have `vision_head`, `language_head` and `logit_scale`
besides, those for captioning `mlm_head`; other heads have no place here. No settings come along: what shapes do not
tell is what the published models have (heads of 64 numbers, GELU, Sub-LN, positions from 2 on, pixels of mean and
deviation 0.5). Heads and image tokenizers of pretraining were never published: to pretrain further, give the model a
codec, whose head then begins fresh.

What a file lacks begins as if it were not there (projections are the identity), and is then not written either.
"""

import io
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from diptych.checkpoints.foreign import Foreign, demand, demand_kind, shapes_of, unsupported
from diptych.checkpoints.key_map import Rule, same, to_ours, to_theirs
from diptych.checkpoints.weights import read_weights
from diptych.core.errors import CheckpointError
from diptych.core.files import write_atomic
from diptych.core.image_format import ImageFormat
from diptych.core.progress import say
from diptych.models.beit3 import BEiT3, BEiT3Config
from diptych.models.pretrained import Pretrained
from diptych.nn.multiway import MultiwayConfig

FORMAT = "torchscale"
WHO = "torchscale's BEiT-3"
SIGN = "beit3.encoder.layers.0.self_attn.k_proj.A.weight"
PUBLISHED_ROWS, PUBLISHED_MASK = 64010, 64001
"""Rows of the published token table, and which of them is the mask token."""
OFFSET = 2
"""fairseq's positions begin here."""
HEAD_WIDTH = 64
RETRIEVAL = ("image_projection.weight", "text_projection.weight", "log_logit_scale")


class _WithMask(Foreign):
    """Of which the token table may have a row for the mask token beyond the vocabulary."""

    @property
    def vocab_size(self) -> int:
        return self.state["token_bias"].shape[0]


def recognises(path: Path) -> bool:
    """Whether `path` is a file of tensors with BEiT-3's names."""
    try:
        return path.is_file() and path.suffix in (".pth", ".pt", ".bin", ".safetensors") and SIGN in read_weights(path)
    except CheckpointError:
        return False


def read(path: Path) -> Foreign:
    """The model and its preprocessing in our terms; the tokenizer (a SentencePiece file) lies apart."""
    theirs = read_weights(path)
    config = config_of(theirs)
    rows = theirs["beit3.text_embed.weight"].shape[0]
    vocab_size = rows if config.mask_id >= 0 else rows - 1
    given = set(theirs)
    begun = {n: t for n, t in begins(config, vocab_size).items() if not _stands_in(n, given)}
    shapes = {n: s for n, s in shapes_of(config, vocab_size).items() if n not in begun}
    state = to_ours(rules_of(config, retrieval=RETRIEVAL[0] not in begun), theirs, shapes)
    return _WithMask(config, state | begun, None)


def write(pretrained: Pretrained, out: Path) -> None:
    """Write a file that BEiT-3's published finetuning code reads. What only pretraining needs stays behind, and that
    is said."""
    config, model = _check_writable(pretrained.model.config), pretrained.model
    assert isinstance(model, BEiT3)
    state = dict(model.state_dict())
    fresh = begins(config, model.vocab_size)
    retrieval = not all(torch.equal(state[n].cpu(), fresh[n]) for n in RETRIEVAL)
    rules = rules_of(config, retrieval)
    used = {n for rule in rules for n in rule.ours}
    left = sorted({n.split(".")[0] for n in state if n not in used and not (n in fresh and _same(state[n], fresh[n]))})
    if left:
        say(f"  left out, since {WHO} has no place for it: {', '.join(left)}.")
    stream = io.BytesIO()
    torch.save({"model": to_theirs(rules, {n: t for n, t in state.items() if n in used})}, stream)
    write_atomic(out, stream.getvalue())


def config_of(theirs: Mapping[str, Tensor], heads: int = 0) -> BEiT3Config:
    """Our settings from their tensors; `heads`: 0 for as many as have 64 numbers each."""
    patch, rows = theirs["beit3.vision_embed.proj.weight"], theirs["beit3.text_embed.weight"].shape[0]
    width, size = patch.shape[0], patch.shape[-1]
    depth = 1 + max(int(n.split(".")[3]) for n in theirs if n.startswith("beit3.encoder.layers."))
    places = theirs["beit3.encoder.embed_positions.A.weight"].shape[0] - OFFSET - 1
    side = math.isqrt(places)
    if side * side != places or (not heads and width % HEAD_WIDTH):
        raise unsupported(FORMAT, f"{places} patches, {width} numbers wide (squares and multiples of 64 only)")
    if "mlm_head.weight" in theirs and rows != PUBLISHED_ROWS:
        raise unsupported(FORMAT, f"a captioning head over {rows} tokens, of which it is not known which hides others")
    hidden = theirs["beit3.encoder.layers.0.ffn.A.fc1.weight"].shape[0]
    inner = "beit3.encoder.layers.0.self_attn.inner_attn_ln.A.weight" in theirs
    return BEiT3Config(
        image_format=ImageFormat(resolution=side * size, resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3),
        context_length=theirs["beit3.encoder.embed_positions.B.weight"].shape[0] - OFFSET,
        blocks=MultiwayConfig(
            width=width,
            depth=depth,
            heads=heads or width // HEAD_WIDTH,
            mlp_ratio=hidden / width,
            norm_position="sub" if inner else "pre",
        ),
        patch_size=size,
        embed_dim=theirs["vision_head.weight"].shape[0] if "vision_head.weight" in theirs else width,
        norm_final="beit3.encoder.layer_norm.A.weight" in theirs,
        tied="mlm_head.weight" not in theirs,
        mask_id=PUBLISHED_MASK if rows == PUBLISHED_ROWS else -1,
        position_offset=OFFSET,
    )


def begins(config: BEiT3Config, vocab_size: int) -> dict[str, Tensor]:
    """What a file need not have, as it then is: vectors are compared as they come out, no token is likelier."""
    size = (config.embed_dim, config.blocks.width)
    found = {n: torch.eye(*size) for n in RETRIEVAL[:2]}
    return found | {"log_logit_scale": torch.tensor(config.init_logit_scale), "token_bias": torch.zeros(vocab_size)}


def rules_of(config: BEiT3Config, retrieval: bool) -> list[Rule]:
    """Our tensors and theirs; `retrieval`: with the projections and the temperature."""
    us, them, width = "image_embed", "beit3.vision_embed", config.blocks.width
    rules = [
        Rule(("text_embed.token_embed.weight",), "beit3.text_embed.weight"),
        Rule((f"{us}.mask_token",), f"{them}.mask_token", shape=(1, 1, width)),
        Rule((f"{us}.cls_token",), f"{them}.cls_token", shape=(1, 1, width)),
        *same([(f"{us}.patch_embed", f"{them}.proj")]),
        Rule((f"{us}.position_embed",), "beit3.encoder.embed_positions.A.weight"),
        Rule(("text_embed.position_embed",), "beit3.encoder.embed_positions.B.weight"),
    ]
    for n in range(config.blocks.depth):
        for kind, letter in (("image", "A"), ("text", "B")):
            rules += same(_layer(f"blocks.{n}", f"beit3.encoder.layers.{n}", kind, letter, config.blocks))
    if config.norm_final:
        rules += same([(f"norms.{k}", f"beit3.encoder.layer_norm.{x}") for k, x in (("image", "A"), ("text", "B"))])
    if not config.tied and config.mask_id == PUBLISHED_MASK:
        rules += [Rule(("token_head.weight",), "mlm_head.weight"), Rule(("token_bias",), "mlm_head.bias")]
    if retrieval:
        theirs = ("vision_head.weight", "language_head.weight", "logit_scale")
        rules += [Rule((n,), t) for n, t in zip(RETRIEVAL, theirs, strict=True)]
    return rules


def _layer(ours: str, theirs: str, kind: str, letter: str, blocks: MultiwayConfig) -> list[tuple[str, str]]:
    attends, widens = f"{ours}.attends.{kind}", f"{ours}.widens.{kind}"
    pairs = [
        (f"{attends}.norm_1", f"{theirs}.self_attn_layer_norm.{letter}"),
        *((f"{attends}.attention.{n}_proj", f"{theirs}.self_attn.{n}_proj.{letter}") for n in ("q", "k", "v", "out")),
        (f"{widens}.norm_2", f"{theirs}.final_layer_norm.{letter}"),
        *((f"{widens}.mlp.fc_{i}", f"{theirs}.ffn.{letter}.fc{i}") for i in (1, 2)),
    ]
    if blocks.norm_position == "sub":
        pairs.append((f"{attends}.attention.inner_norm", f"{theirs}.self_attn.inner_attn_ln.{letter}"))
        pairs.append((f"{widens}.mlp.inner_norm", f"{theirs}.ffn.{letter}.ffn_layernorm"))
    return pairs


def _stands_in(name: str, given: set[str]) -> bool:
    """Whether a file has what `begins` would stand for."""
    return ("mlm_head.bias" if name == "token_bias" else "vision_head.weight") in given


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu(), b)


def _check_writable(config: object) -> BEiT3Config:
    demand_kind(config, (BEiT3Config,), WHO, "a multiway model")
    assert isinstance(config, BEiT3Config)
    demand(config, {"stem": None, "position_offset": OFFSET}, WHO)
    wanted = {"norm": "layer", "bias": True, "qk_norm": False, "activation": "gelu", "norm_eps": 1e-5}
    experts = {"attention_experts": "separate", "fusion_layers": 0, "heads": config.blocks.width // HEAD_WIDTH}
    demand(config.blocks, {**wanted, **experts}, WHO)
    return config
