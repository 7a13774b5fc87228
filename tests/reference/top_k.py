"""The nearest vectors by sorting all of them."""


def best(query: list[float], vectors: list[list[float]], k: int) -> list[tuple[int, float]]:
    """(row, inner product) of the k best; of equal ones the earlier row."""
    scores = [sum(q * v for q, v in zip(query, vector, strict=True)) for vector in vectors]
    return sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))[:k]
