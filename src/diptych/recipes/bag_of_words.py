"""Bag-of-words prediction (Joulin et al., 2016): which words does the caption have? The second of CLIP's figure 2."""

from diptych.evals.retrieval import RetrievalConfig
from diptych.models import sizes
from diptych.models.word_predictor import WordPredictorConfig
from diptych.objectives.bag_of_words import BagOfWordsConfig
from diptych.recipes import clip
from diptych.train.config import RunConfig


def tiny() -> RunConfig:
    """clip:tiny's image tower under one linear map to the vocabulary: everything else is equal, so they compare.

    Run:     diptych corpus get emoji --out emoji; diptych pretrain bag_of_words:tiny data=emoji
    Cost:    about four minutes of two cores
    Expect:  text-to-image R@1 of 55.4 % [53.2, 57.6] on the test artist with captions=first (chance 0.05 %)
    """
    model = sizes.tiny()
    return clip.tiny().replace(
        model=WordPredictorConfig(
            image_format=model.image_format,
            context_length=model.context_length,
            embed_dim=model.embed_dim,
            image=model.image,
        ),
        objective=BagOfWordsConfig(),
        evals=(RetrievalConfig(captions="first"),),
    )
