import pytest
import torch

from diptych.core.errors import EvalError
from diptych.models import sizes
from diptych.models.capabilities import CAPABILITIES, capabilities_of, require


def test_a_model_has_what_it_can_do():
    with torch.device("meta"):
        model = sizes.vit_b32().build(100)
    assert capabilities_of(model) == ("embed_image", "embed_text", "score")
    require(model, ("embed_image",), "retrieval")
    assert set(capabilities_of(model)) <= set(CAPABILITIES)


def test_what_is_missing_is_said_with_what_there_is():
    with pytest.raises(EvalError, match=r"^captioning must be given a model with generate_text; got Linear with none"):
        require(torch.nn.Linear(2, 2), ("generate_text",), "captioning")
