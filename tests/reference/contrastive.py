"""InfoNCE and the sigmoid loss as plain loops over pairs, in float64, differentiable by torch scalar by scalar."""

import math

import torch
from torch import Tensor


def same(text_ids: list[int], image_ids: list[int], i: int, j: int) -> bool:
    """Whether pairs i and j share their caption or their image."""
    return text_ids[i] == text_ids[j] or image_ids[i] == image_ids[j]


def info_nce(
    image: Tensor,
    text: Tensor,
    log_logit_scale: Tensor,
    text_ids: list[int],
    image_ids: list[int],
    duplicates: str,
    label_smoothing: float,
) -> Tensor:
    """The mean over all images and all texts of the cross-entropy of finding one's partner."""
    n, losses = len(image), []
    for queries, keys in ((image, text), (text, image)):
        for i in range(n):
            logits, weights = [], []
            friends = [j for j in range(n) if j == i or same(text_ids, image_ids, i, j)]
            candidates = [j for j in range(n) if duplicates != "mask" or j == i or j not in friends]
            for j in candidates:
                logits.append(log_logit_scale.exp() * sum(queries[i][k] * keys[j][k] for k in range(image.shape[1])))
                positives = friends if duplicates == "positives" else [i]
                weight = (1 - label_smoothing) / len(positives) if j in positives else 0.0
                weights.append(weight + label_smoothing / len(candidates))
            log_sum = torch.stack(logits).logsumexp(0)
            losses.append(sum(w * (log_sum - x) for w, x in zip(weights, logits, strict=True)))
    return sum(losses) / len(losses)


def sigmoid(
    image: Tensor,
    text: Tensor,
    log_logit_scale: Tensor,
    logit_bias: Tensor,
    text_ids: list[int],
    image_ids: list[int],
    duplicates: str,
) -> Tensor:
    """-(1/n) sum over all pairs of log sigmoid(z (s cos + b))."""
    n, total = len(image), 0.0
    for i in range(n):
        for j in range(n):
            duplicate = i != j and same(text_ids, image_ids, i, j)
            if duplicate and duplicates == "mask":
                continue
            z = 1 if i == j or (duplicate and duplicates == "positives") else -1
            logit = log_logit_scale.exp() * sum(image[i][k] * text[j][k] for k in range(image.shape[1])) + logit_bias
            total = total + torch.log1p((-z * logit).exp())
    return total / n


def best_constant(n: int) -> float:
    """The sigmoid loss of answering 1/n to every question."""
    return -sum(math.log(1 / n) if i == j else math.log(1 - 1 / n) for i in range(n) for j in range(n)) / n
