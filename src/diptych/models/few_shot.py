"""Prompts of a few examples and a query, each with its image: how Frozen and Flamingo are shown a task (Tsimpoukelli et
al., 2021, arXiv:2106.13884, section 3.3; Alayrac et al., 2022, arXiv:2204.14198, figure 8)."""

from collections.abc import Sequence

import torch

from diptych.core.batch import Batch
from diptych.core.errors import DataError


def few_shot(
    examples: Sequence[Sequence[Sequence[int]]], queries: Sequence[Sequence[int]], device: torch.device
) -> Batch:
    """Row b is examples[b][0], examples[b][1], ..., queries[b], all as token ids, and an image stands before each of
    these. Images come in that order, row by row, a query's last. Only the first piece of a row should begin with the
    start token, and each example should end as a text ends.

    A model's `begin` reads it, with the features of those images. Raises DataError where rows are not as many, or a
    piece is empty.
    """
    if len(examples) != len(queries) or not queries:
        raise DataError(
            f"examples must be given for each of the queries, of which there is one at least; got {len(examples)} and "
            f"{len(queries)}. Give an empty list where a query has none."
        )
    pieces = [[*map(list, shots), list(query)] for shots, query in zip(examples, queries, strict=True)]
    if not all(piece for row in pieces for piece in row):
        raise DataError("an example and a query must have a token at least; got one without. Leave it out.")
    rows = [[token for piece in row for token in piece] for row in pieces]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    starts = [sum(map(len, row[:i])) for row in pieces for i in range(len(row))]
    record = torch.arange(len(pieces)).repeat_interleave(torch.tensor([len(row) for row in pieces]))
    return Batch(tokens=tokens.to(device), lengths=lengths, image_record=record, image_position=torch.tensor(starts))
