"""Heat maps: which parts of an image speak for a phrase, by gradients of how well the two match.

LeGrad (Bousselham et al., 2024, arXiv:2404.03214) for transformers, Grad-CAM (Selvaraju et al., 2017) and gScoreCAM
(Chen et al., 2022) for maps of channels: a conv tower's last map, or the patches that enter a transformer's last
block. A match is the cosine of embeddings, or log p(phrase | image) of a model that writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.errors import EvalError
from diptych.data.decode import resize_image
from diptych.data.frame import Frame
from diptych.models.pretrained import ImageLike, Pretrained, _as_tensor
from diptych.nn.attention import Attention
from diptych.nn.attention_weights import keep_attention

Method = Literal["legrad", "legrad_blocks", "gradcam", "gscorecam"]
"""legrad         of the match, with respect to each block's attention
legrad_blocks  the paper's: of each block the match of its own output, pooled by the tower's end, is taken
gradcam, gscorecam  over channels: cheap, or with a forward pass for each of the most important channels"""

CHANNELS = 300
"""How many channels gScoreCAM weighs (Chen et al., 2022, section 4)."""
MASKED = 64
"""Masked images that are looked at at once."""


def heat_map(model: Pretrained, image: ImageLike, text: str, method: Method | None = None) -> Float[np.ndarray, "h w"]:
    """Where in `image` the model sees what `text` says: 0..1 for each pixel of the image as it is.

    What the model's own crop cuts off is 0. `method` None: LeGrad where the tower is a transformer of ours, else
    Grad-CAM.
    """
    pixels = _as_tensor(image)
    format = model.model.config.image_format
    frame = Frame.of(pixels.shape[2], pixels.shape[1], format)
    heat = heat_maps(model, resize_image(pixels, format)[None], [text], method)[0]
    return on_image(heat, frame)


def heat_maps(
    model: Pretrained,
    images: UInt8[Tensor, "b 3 s s"],
    texts: Sequence[str],
    method: Method | None = None,
    channels: int = CHANNELS,
) -> Float[Tensor, "b s s"]:
    """The heat of each image for its text, at the model's resolution: 0 to 1, all zeros where nothing speaks for it."""
    tower = image_tower(model)
    chosen = method or default_method(model)
    given = images.to(model.device, torch.float32).requires_grad_()
    with torch.enable_grad(), torch.inference_mode(False):
        if chosen in ("legrad", "legrad_blocks"):
            grid = _legrad(model, tower, given, texts, own=chosen == "legrad_blocks")
        else:
            grid = _cam(model, tower, given, texts, channels if chosen == "gscorecam" else 0)
    heat = F.interpolate(grid[:, None].float(), images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return unit_range(heat.cpu())


def similarity(model: Pretrained, images: Float[Tensor, "b 3 s s"], texts: Sequence[str]) -> Float[Tensor, " b"]:
    """How well each image matches its text, differentiable in the images (0..255): the cosine, else log p(text | image)
    of all tokens but the first."""
    network: Any = model.model
    if _embeds(model):
        different = list(dict.fromkeys(texts))
        said = model.embed_text(different).to(images.device)[[different.index(t) for t in texts]]
        return (network.encode_image(images) * said).sum(1)
    tokens, lengths = model.tokenizer.batch(list(texts))
    batch = Batch(tokens=tokens.to(images.device), lengths=lengths, image_record=torch.arange(len(images)))
    next_tokens = network.predict(batch, network.image_features(images))
    rows = network.logits(next_tokens.hidden).float().log_softmax(-1).gather(1, next_tokens.targets[:, None])[:, 0]
    return torch.zeros(len(images), device=rows.device).index_add(0, next_tokens.record.to(rows.device), rows)


def unmappable(model: Pretrained, method: Method | None = None) -> str:
    """Why no heat maps can be made of a model by this method, in some words; "" if they can."""
    tower = getattr(model.model, "image_tower", None)
    if not isinstance(tower, nn.Module):
        return "the model has no image tower"
    if not _embeds(model) and not hasattr(model.model, "predict"):
        return "the model neither embeds nor writes with gradients"
    if method in ("legrad", "legrad_blocks") and not _attentions(tower):
        return f"{method} needs a transformer of ours as the image tower, which {type(tower).__name__} is not"
    if method == "legrad_blocks" and not (_embeds(model) and hasattr(tower, "norm_post") and _ends(model)):
        return "legrad_blocks needs a dual encoder whose image tower is a vision_transformer"
    return ""


def default_method(model: Pretrained) -> Method:
    """LeGrad where the tower is a transformer of ours, else Grad-CAM."""
    return "legrad" if _attentions(image_tower(model)) else "gradcam"


def image_tower(model: Pretrained) -> nn.Module:
    """The tower that maps are made of. Raises EvalError where there is none."""
    if reason := unmappable(model):
        raise EvalError(
            f"heat maps must be made of a model with an image tower and a score that has gradients; got "
            f"{type(model.model).__name__}: {reason}. There are methods {', '.join(get_args(Method))}."
        )
    return model.model.image_tower  # type: ignore[return-value]


def unit_range(heat: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Each map stretched to 0..1 (min-max); a flat one becomes zeros."""
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    flat = (high - low) <= 1e-12 * high.abs().clamp_min(1e-30)
    return torch.where(flat, 0.0, (heat - low) / torch.where(flat, 1.0, high - low))


def on_image(heat: Float[Tensor, "s s"], frame: Frame) -> Float[np.ndarray, "h w"]:
    """A map of the square that the model sees, on the image's own pixels; 0 where the model does not see it."""
    x0, y0, x1, y1 = frame.seen()
    (left, top), (right, bottom) = np.rint(frame.to_image(np.array([[x0, y0], [x1, y1]], float))).astype(int).tolist()
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, frame.width), min(bottom, frame.height)
    part = heat[None, None, y0:y1, x0:x1]
    found = np.zeros((frame.height, frame.width), np.float32)
    found[top:bottom, left:right] = F.interpolate(part, (bottom - top, right - left), mode="bilinear")[0, 0].numpy()
    return found


def _legrad(model: Pretrained, tower: nn.Module, images: Tensor, texts: Sequence[str], own: bool) -> Tensor:
    """The sum over blocks of the mean over heads and queries of max(0, d match / d attention), without CLS."""
    with keep_attention(_attentions(tower)) as kept, _kept_outputs(tower.blocks, own) as outputs:
        match = similarity(model, images, texts)
    if own:
        said = model.embed_text(list(texts)).to(images.device)
        matches = [(_end_of_tower(model, tower, x) * said).sum() for x in outputs]
        grads = [torch.autograd.grad(m, w, retain_graph=True)[0] for m, w in zip(matches, kept, strict=False)]
    else:
        found = torch.autograd.grad(match.sum(), kept, allow_unused=True)  # a last block that nothing reads
        grads = [g for g in found if g is not None]
    heat = torch.stack([g.clamp(min=0).mean((1, 2)) for g in grads]).sum(0)  # (b, keys)
    return _grid(heat[:, int(getattr(tower, "prefix", 0)) :])


def _cam(model: Pretrained, tower: nn.Module, images: Tensor, texts: Sequence[str], channels: int) -> Tensor:
    """The weighted sum of channels, clamped at 0: weights are each channel's mean gradient (Grad-CAM), or, of the
    `channels` whose mean gradient is largest, the softmax of the match of the image seen through them (gScoreCAM)."""
    with _last_map(tower) as last:
        match = similarity(model, images, texts)
    seen = last[0]
    grad = torch.autograd.grad(match.sum(), seen)[0]
    prefix = int(getattr(tower, "prefix", 0))
    if seen.ndim == 3:
        seen, grad = (_grid(t[:, prefix:].transpose(1, 2)) for t in (seen, grad))
    weights = grad.mean((2, 3))  # (b, c)
    if channels:
        weights = _score_weights(model, images.detach(), texts, seen.detach(), weights, channels)
    return (weights[:, :, None, None] * seen).sum(1).clamp(min=0).detach()


@torch.no_grad()
def _score_weights(
    model: Pretrained, images: Tensor, texts: Sequence[str], seen: Tensor, grads: Tensor, channels: int
) -> Tensor:
    network: Any = model.model
    scale = getattr(network, "log_logit_scale", torch.zeros(())).detach().exp() if _embeds(model) else 1.0
    mean = 255 * network.pixel_mean
    weights = torch.zeros_like(grads)
    for i, text in enumerate(texts):
        top = grads[i].topk(min(channels, grads.shape[1])).indices
        through = F.interpolate(seen[i, top][:, None], images.shape[-2:], mode="bilinear", align_corners=False)
        masks = unit_range(through[:, 0])[:, None]  # (k, 1, s, s)
        scores = torch.cat(
            [similarity(model, mean + (images[i] - mean) * m, [text] * len(m)) for m in masks.split(MASKED)]
        )
        weights[i, top] = (scale * scores).softmax(0).to(weights.dtype)
    return weights


@contextmanager
def _last_map(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Holds, after a forward pass, what enters the last block that ran (b t d), or, of a tower without blocks of
    tokens, the last map of channels (b c i j)."""
    last: list[Tensor] = []

    def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        if isinstance(x, Tensor) and x.ndim == 3:
            last[:] = [x]

    def leaves(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            last[:] = [output]

    blocks = getattr(tower, "blocks", None)
    if isinstance(blocks, nn.ModuleList):
        handles = [b.register_forward_pre_hook(enters, with_kwargs=True) for b in blocks]
    else:
        handles = [m.register_forward_hook(leaves) for m in tower.modules()]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise EvalError(
            f"a heat map must be made of an image tower that has a map of places; got {type(tower).__name__}, whose "
            "forward pass shows none. Use a convolutional tower or a transformer."
        )


@contextmanager
def _kept_outputs(blocks: Any, wanted: bool) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    handles = [b.register_forward_hook(lambda m, a, out: kept.append(out)) for b in blocks] if wanted else []
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _end_of_tower(model: Pretrained, tower: Any, x: Tensor) -> Tensor:
    """A block's output as if it were the last: normed, pooled, projected, of unit length. (b, d): CLS alone."""
    x = tower.norm_post(x)
    if tower.map_pool is not None:
        x = tower.map_pool(x)
    elif x.ndim == 3:
        x = x[:, 0] if tower.cls_token is not None else x.mean(1)
    network: Any = model.model
    return network.encode_from("image", x if tower.projection is None else tower.projection(x))


def _attentions(tower: nn.Module) -> list[Attention]:
    """The attention of each block of ours, and that of the pooling where there is one; [] of another tower."""
    blocks = getattr(tower, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        return []
    found = [getattr(b, "attention", None) for b in blocks]
    pool = getattr(getattr(tower, "map_pool", None), "attention", None)
    ours = [a for a in found if isinstance(a, Attention)]
    return [*ours, *([pool] if isinstance(pool, Attention) else [])] if len(ours) == len(found) else []


def _embeds(model: Pretrained) -> bool:
    return "embed_text" in model.capabilities and hasattr(model.model, "encode_image")


def _ends(model: Pretrained) -> bool:
    return hasattr(model.model, "encode_from")


def _grid(values: Tensor) -> Tensor:
    """The last axis, of square many places, as rows and columns."""
    side = round(values.shape[-1] ** 0.5)
    if side * side != values.shape[-1]:
        raise EvalError(f"an image's patches must form a square to be a map; got {values.shape[-1]} of them.")
    return values.unflatten(-1, (side, side))
