import torch

from diptych.evals.ranking import Matches
from diptych.evals.retrieval_pictures import RetrievalPictures
from diptych.evals.scoring import EmbeddedItems, Gallery
from diptych.evals.vector_ranks import vector_ranks
from tests.evals import fakes


def test_the_hardest_are_named_with_what_was_found_instead():
    split = fakes.pairs(6)
    split._captions = [*split._captions[:5], split._captions[0]]  # the last has the first one's words
    vectors = torch.eye(6)
    matches = Matches.of(list(range(6)), [split.captions(i) for i in range(6)])
    texts = vectors[:5].clone()
    texts[2], texts[3] = vectors[3], 0.9 * vectors[3] + 0.1 * vectors[2]  # 2 is taken for 3
    items = EmbeddedItems(vectors, texts)
    found = vector_ranks(vectors, texts, matches)
    gallery = Gallery(list(range(6)), [bytes([i]) for i in range(6)], vectors)
    words = [split.captions(i)[0] for i in range(5)]
    shown = RetrievalPictures(split, gallery, matches, words, items, found, pictures=2, similarity=3).all()
    hardest = shown["t2i_worst"][0]
    assert (hardest["query"], hardest["rank"]) == ("thing 2 view 0", 4)
    assert (hardest["target"]["uid"], hardest["hits"][0]["uid"]) == (split.uid(2), split.uid(3))
    assert not hardest["hits"][0]["correct"]
    assert [len(shown[f"{way}_{end}"]) for way in ("t2i", "i2t") for end in ("best", "worst")] == [2] * 4
    assert shown["similarity"]["matrix"][0][:2] == [1, 0]
    assert sum(shown["rank_histogram"]["t2i"]["counts"]) == 6
    first = next(x for x in shown["i2t_best"] + shown["i2t_worst"])
    assert first["query"]["captions"]
    assert RetrievalPictures(split, gallery, matches, words, items, found, 0, 0).all()["similarity"]["matrix"] == []
