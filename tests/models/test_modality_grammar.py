import torch

from diptych.models.modality_grammar import ModalityGrammar

GRAMMAR = ModalityGrammar(codes=torch.tensor([2, 3, 7]), marks=torch.tensor([5, 6]), cells=2, size=8)


def ids(inside: int, may_begin: bool = True) -> list[int]:
    return GRAMMAR.allowed(torch.tensor([inside]), torch.tensor([may_begin]))[0].nonzero()[:, 0].tolist()


def test_an_image_is_its_begin_so_many_codes_and_its_end():
    assert ids(0) == [0, 1, 4, 5]
    assert ids(0, may_begin=False) == [0, 1, 4]
    assert ids(1) == ids(2) == [2, 3, 7]
    assert ids(3) == [6]


def test_a_row_is_followed_token_by_token():
    inside, seen = torch.tensor([0]), []
    for token in (0, 5, 2, 7, 6, 4, 5):
        inside = GRAMMAR.after(inside, torch.tensor([token]))
        seen.append(int(inside))
    assert seen == [0, 1, 2, 3, 0, 0, 1]


def test_rows_are_apart():
    found = GRAMMAR.allowed(torch.tensor([0, 1, 3]), torch.tensor([True, True, True]))
    assert [row.nonzero()[:, 0].tolist() for row in found] == [ids(0), ids(1), ids(3)]
    assert GRAMMAR.after(torch.tensor([0, 2]), torch.tensor([1, 3])).tolist() == [0, 3]
