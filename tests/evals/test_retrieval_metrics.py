"""What the figures say, and the same vectors scored by clip_benchmark and by open_clip's trainer."""

import numpy as np
import pytest
import torch

from diptych.evals.ranking import Matches, Ranks
from diptych.evals.retrieval_metrics import directions, items_of, metrics_of, recall_curves
from diptych.evals.vector_ranks import vector_ranks

KS = (1, 5, 10)


def _vectors(images, texts_each, noise=1.2, width=16):
    g = torch.Generator().manual_seed(0)
    image = torch.randn(images, width, generator=g)
    text = image.repeat_interleave(texts_each, 0) + noise * torch.randn(images * texts_each, width, generator=g)
    return (torch.nn.functional.normalize(x, dim=1) for x in (image, text))


def _ours(image, text, captions, ties="half"):
    """Metrics of vectors, one a caption, equal captions having equal ones."""
    matches = Matches.of(list(range(len(image))), captions)
    return metrics_of(vector_ranks(image, text[matches.first_text], matches, ties), matches, KS, 100)


def _clip_benchmark(image, text, each):
    """The whole of its `evaluate`, with a model that returns these vectors."""
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    class Model(torch.nn.Module):
        def encode_image(self, places):
            return image[places]

        def encode_text(self, places):
            return text[places]

    owners = torch.arange(len(image)).split(8)
    loader = [(part, [list(range(int(i) * each, int(i) * each + each)) for i in part]) for part in owners]
    found = evaluate(Model(), loader, torch.tensor, "cpu", amp=False, recall_k_list=list(KS))
    names = {"image_retrieval": "t2i", "text_retrieval": "i2t"}
    return {f"{names[k.split('_recall@')[0]]}_recall_at_{k.split('@')[1]}": v for k, v in found.items()}


@pytest.mark.parametrize("each", [1, 3])
def test_clip_benchmark_says_the_same(each):
    image, text = _vectors(64, each)
    captions = [[f"text {i} {c}" for c in range(each)] for i in range(64)]
    mine, theirs = _ours(image, text, captions), _clip_benchmark(image, text, each)
    assert len(theirs) == 6
    for name, value in theirs.items():
        assert np.float32(mine[name].value) == np.float32(value), name
        assert 0.05 < value < 1 or name.endswith("_10")


def test_clip_benchmark_takes_an_equal_caption_of_another_image_for_wrong():
    image, text = _vectors(64, 1)
    captions = [[f"text {i}"] for i in range(64)]
    captions[1], text[1], image[1] = captions[0], text[0], torch.nn.functional.normalize(text[0], dim=0)
    theirs, mine = _clip_benchmark(image, text, 1), _ours(image, text, captions)
    blind = _ours(image, text, [[f"other {i}"] for i in range(64)], "optimistic")  # as if no two were equal
    rank = {t: 1 + int(((image @ text[t]) > image[t] @ text[t]).sum()) for t in (0, 1)}
    assert rank[1] == 1  # image 1 is what the words say: right for caption 0 too
    assert rank[0] > 1
    assert mine["t2i_recall_at_1"].value == pytest.approx(theirs["t2i_recall_at_1"] + 1 / 64)
    assert np.float32(blind["t2i_recall_at_1"].value) == np.float32(theirs["t2i_recall_at_1"])


def test_where_scores_tie_clip_benchmark_takes_what_topk_happens_to_name():
    image = torch.nn.functional.one_hot(torch.arange(64) // 4, 16).float()  # four images and four texts are alike
    captions = [[f"text {i}"] for i in range(64)]
    theirs = _clip_benchmark(image, image, 1)
    low, half, high = (_ours(image, image, captions, t) for t in ("pessimistic", "half", "optimistic"))
    for name, value in theirs.items():
        assert low[name].value <= half[name].value <= high[name].value
        assert low[name].value - 1e-6 <= value <= high[name].value + 1e-6
    assert (low["t2i_recall_at_1"].value, high["t2i_recall_at_1"].value) == (0, 1)
    assert half["t2i_median_rank"].value == 2.5  # a fair coin, on average


def test_the_trainer_of_open_clip_says_the_same_of_pairs():
    from open_clip_train.train import get_clip_metrics

    image, text = _vectors(64, 1)
    theirs, mine = get_clip_metrics(image, text, torch.tensor(100.0)), _ours(image, text, [[str(i)] for i in range(64)])
    for way, name in (("t2i", "text_to_image"), ("i2t", "image_to_text")):
        for k in KS:
            assert mine[f"{way}_recall_at_{k}"].value == theirs[f"{name}_R@{k}"]
        assert np.floor(mine[f"{way}_median_rank"].value) == theirs[f"{name}_median_rank"]  # theirs is rounded down


def test_items_and_curves_are_of_the_same_queries():
    image, text = _vectors(40, 2)
    captions = [[f"text {i} {c}" for c in range(2)] for i in range(40)]
    matches = Matches.of(list(range(40)), captions)
    found = vector_ranks(image, text, matches)
    metrics = metrics_of(found, matches, KS, 100)
    tables = items_of(found, matches, [f"uid{i}" for i in range(40)], KS)
    assert tables["captions"].keys[:3] == ("uid0#0", "uid0#1", "uid1#0")
    for table in tables.values():
        for name, values in table.values.items():
            assert np.mean(values) == pytest.approx(metrics[name].value)
    lines = recall_curves(found, matches)
    assert lines.series["text to image"][0] == metrics["t2i_recall_at_1"].value
    assert lines.series["image to text, guessing"][0] == pytest.approx(metrics["i2t_recall_at_1"].chance)
    assert "recall" in lines.html()


def test_captions_of_one_image_are_one_cluster_and_equal_ones_one_query():
    many = Matches.of(["a", "b"], [["1", "2", "3"], ["4", "5", "6"]])
    few = Matches.of(["a", "b", "c", "d"], [["x"], ["y"], ["x"], ["y"]])
    for matches, n in ((many, 2), (few, 2)):
        sizes = (len(matches.first_image), len(matches.first_text))
        ranks = [torch.ones(size, dtype=torch.float64) for size in sizes]
        t2i, i2t = directions(Ranks(*ranks, *ranks), matches)
        assert len(np.unique(t2i.clusters)) == n
        assert len(np.unique(i2t.clusters)) == len(matches.first_image)
