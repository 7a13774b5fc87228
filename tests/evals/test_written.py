import numpy as np

from diptych.evals.written import dealt_out


def test_captions_are_dealt_out_to_other_images():
    clusters = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5])
    deals = dealt_out(clusters, 4, seed=0)
    assert len(deals) == 4
    for deal in deals:
        assert sorted(deal.tolist()) == list(range(10))
        assert (clusters[deal] != clusters).all()
    assert [d.tolist() for d in deals] == [d.tolist() for d in dealt_out(clusters, 4, seed=0)]
    assert len(dealt_out(np.array([0, 0, 0, 1]), 4, seed=0)) == 1
