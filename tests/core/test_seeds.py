import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.core.seeds import fold, folds, numpy_generator, permute, permutes, torch_generator


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 50))
def test_permute_is_a_bijection(size, seed, epoch):
    assert sorted(permute(n, size, seed, epoch) for n in range(size)) == list(range(size))


def test_permute_differs_between_epochs_and_looks_shuffled():
    a, b = ([permute(n, 1000, 0, epoch) for n in range(1000)] for epoch in (0, 1))
    assert a != b
    assert abs(np.corrcoef(a, range(1000))[0, 1]) < 0.1
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_permute_reaches_sizes_that_no_list_would():
    assert 0 <= permute(123_456_789_012, 10**12, 7, 0) < 10**12


def test_generators_are_pure_functions_of_their_parts():
    assert fold(1, "a") == fold(1, "a") != fold(1, "b")
    assert fold("ab", "c") != fold("a", "bc")
    assert numpy_generator(3, "x").random() == numpy_generator(3, "x").random()
    assert torch.equal(torch.rand(2, generator=torch_generator(5)), torch.rand(2, generator=torch_generator(5)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**40), st.integers(0, 50))
def test_many_at_once_equal_one_by_one(size, seed, epoch):
    some = np.arange(0, size, max(1, size // 40))
    assert permutes(some, size, seed, epoch).tolist() == [permute(int(n), size, seed, epoch) for n in some]
    assert folds((seed, "augment"), range(5)) == [fold(seed, "augment", n) for n in range(5)]
    assert folds((), [seed], ("caption",)) == [fold(seed, "caption")]


def test_many_places_of_a_size_that_no_list_would_hold():
    far = np.array([123_456_789_012, 5])
    assert permutes(far, 10**12, 7, 0).tolist() == [permute(int(n), 10**12, 7, 0) for n in far]
