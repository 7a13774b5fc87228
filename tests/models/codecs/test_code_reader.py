import torch

from diptych.core.config import from_json, to_json
from diptych.models.codecs.code_reader import CodeReaderConfig
from tests.models.small_codec import small_codec
from tests.models.towers import stir


def test_it_reads_what_a_vq_vae_of_its_weights_reads():
    whole = stir(small_codec().build()).eval()
    config = CodeReaderConfig(**{n: getattr(small_codec(), n) for n in CodeReaderConfig.model_fields})
    assert from_json(to_json(config)) == config
    half = config.build().eval()
    half.load_state_dict({n: t for n, t in whole.state_dict().items() if not n.startswith("decoder.")})
    images = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
    assert torch.equal(half.codes(images), whole.codes(images))
    assert half.grid == whole.grid
    assert half.codebook_size == whole.codebook_size
