"""ALBEF's and BLIP's losses in loops over single pairs: slow and plain."""

import torch
from torch import Tensor


def contrast(
    own: Tensor, candidates: Tensor, teacher: Tensor, same: list[list[bool]], share: float, smoothing: float
) -> Tensor:
    """The mean over rows of the cross-entropy of finding candidate i for row i. `own`, `teacher` (b e): scaled vectors;
    `candidates` (n e)."""
    losses = []
    for i in range(len(own)):
        open_ = [j for j in range(len(candidates)) if not same[i][j]]
        logits = torch.stack([own[i] @ candidates[j] for j in open_])
        with torch.no_grad():
            soft = torch.stack([teacher[i] @ candidates[j] for j in open_]).softmax(0)
        hard = torch.tensor([float(j == i) for j in open_])
        target = (1 - smoothing) * ((1 - share) * hard + share * soft) + smoothing / len(open_)
        losses.append(-(target * logits.log_softmax(0)).sum())
    return torch.stack(losses).mean()


def smoothed(logits: Tensor, target: int, smoothing: float) -> Tensor:
    """The cross-entropy of one token."""
    log_p = logits.log_softmax(-1)
    return -(1 - smoothing) * log_p[target] - smoothing * log_p.mean()


def matching(model, features: Tensor, texts: list[Tensor], wrong: tuple[list[int], list[int]]) -> Tensor:
    """The mean over b right pairs, b texts with wrong images, b images with wrong texts, each judged alone."""
    losses = []

    def judge(image: int, text: int, label: int) -> None:
        tokens = texts[text][None]
        logits = model.matching_logits(features[image : image + 1], tokens, torch.tensor([tokens.shape[1]]))
        losses.append(-logits[0].log_softmax(0)[label])

    for i in range(len(texts)):
        judge(i, i, 1)
        judge(wrong[0][i], i, 0)
        judge(i, wrong[1][i], 0)
    return torch.stack(losses).mean()
