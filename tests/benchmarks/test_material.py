"""Both sides get the same material, and the photographs are like photographs."""

import io

import numpy as np
from benchmarks.make_material import photo
from benchmarks.material import captions, model_file, pixels

from diptych.data.decode import decode_image


def test_captions_come_round_again(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.material.CAPTIONS", tmp_path / "captions.txt")
    (tmp_path / "captions.txt").write_text("a\nb\nc\n")
    assert captions(3, start=2) == ["c", "a", "b"]


def test_pixels_are_a_function_of_the_seed():
    assert np.array_equal(pixels(2, 8, seed=1), pixels(2, 8, seed=1))
    assert not np.array_equal(pixels(2, 8, seed=1), pixels(2, 8, seed=2))


def test_a_photograph_is_the_same_each_time_and_compresses_like_one():
    first, second = io.BytesIO(), io.BytesIO()
    photo(3, 300, 200).save(first, "JPEG", quality=90)
    photo(3, 300, 200).save(second, "JPEG", quality=90)
    assert first.getvalue() == second.getvalue()
    assert decode_image(first.getvalue()).shape == (3, 200, 300)
    bits = len(first.getvalue()) * 8 / (300 * 200)
    assert 1 < bits < 8  # photographs at this quality have 2 to 4 bits a pixel, noise has more than 8


def test_models_of_ours_are_found():
    assert model_file("ViT-bench-tiny")
    assert model_file("ViT-B-32") is None
