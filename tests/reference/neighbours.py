"""The k nearest by cosine, one image at a time, every distance sorted: what evals/knn.py does in chunks."""

import numpy as np


def nearest(train: np.ndarray, truth: np.ndarray, judged: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The cosines of each image's k nearest and their classes; of equally near ones the earlier first."""
    cosines, classes = [], []
    for row in judged:
        near = [float(row @ t) / (np.linalg.norm(row) * np.linalg.norm(t)) for t in train]
        order = sorted(range(len(train)), key=lambda i: (-near[i], i))[:k]
        cosines.append([near[i] for i in order])
        classes.append([int(truth[i]) for i in order])
    return np.array(cosines), np.array(classes)


def votes(cosines: np.ndarray, classes: np.ndarray, num_classes: int, temperature: float = 0.07) -> np.ndarray:
    """Each class's sum of exp(cos / temperature) over the neighbours that are of it."""
    found = np.zeros((len(classes), num_classes))
    for i, (near, named) in enumerate(zip(cosines, classes, strict=True)):
        for cosine, label in zip(near, named, strict=True):
            found[i, label] += np.exp(cosine / temperature)
    return found
