import copy
import os
import subprocess
import sys

import pytest
import torch

from diptych.train import compiling
from diptych.train.compiling import compile_blocks, compiles
from tests.train.test_accumulate import small_vit

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_given_answer_stands_and_auto_weighs(monkeypatch):
    assert compiles(True, CPU, 1) == (True, "given")
    assert compiles(False, CUDA, 10**6) == (False, "given")
    assert compiles("auto", CPU, 10**6)[0] is False
    monkeypatch.setattr(compiling, "find_spec", lambda name: object())
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/cc")
    assert compiles("auto", CUDA, 10**6) == (True, "chosen for CUDA")
    assert compiles("auto", CUDA, 10)[0] is False
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert compiles("auto", CUDA, 10**6) == (False, "there is no C compiler")
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert compiles("auto", CUDA, 10**6) == (False, "triton is not installed")


def test_blocks_are_wrapped_once_for_all_and_survive_a_copy(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    made = []
    monkeypatch.setattr(compiling.torch, "compile", lambda f, **settings: made.append(settings) or f)
    compiling._compiled.cache_clear()
    model = small_vit().build(280)
    blocks = [*model.image_tower.blocks, *model.text_tower.blocks]
    assert compile_blocks(model) == len(blocks)
    assert [s["dynamic"] for s in made] == [None, True]  # one for the images, one for texts of any length
    assert all(s["options"] == {"fallback_random": True} for s in made)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path))
    twin = copy.deepcopy(model)
    assert twin.image_tower.blocks[0].forward.args[0] is twin.image_tower.blocks[0]
    assert model.state_dict().keys() == small_vit().build(280).state_dict().keys()
    compiling._compiled.cache_clear()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


SCRIPT = """
import sys, torch
from diptych.nn.checkpointing import set_checkpointing
from diptych.train.compiling import compile_blocks
from tests.train.test_accumulate import small_vit

torch.set_num_threads(1)
torch.manual_seed(0)
model = small_vit().build(280).train()
plain = small_vit().build(280).train()
plain.load_state_dict(model.state_dict())
compile_blocks(model, sys.argv[1])
for checkpointed, lengths in ((False, [3, 8, 2, 5]), (False, [1, 2, 8, 8]), (True, [4, 6, 2, 2])):
    set_checkpointing(model, checkpointed)
    tokens = torch.randint(1, 280, (4, 8))
    found = []
    for one in (model, plain):
        one.zero_grad()
        torch.manual_seed(1)
        side = one.config.image_format.resolution
        image = one.encode_image(torch.full((4, 3, side, side), 7, dtype=torch.uint8))
        text = one.encode_text(tokens, torch.tensor(lengths))
        (image * text.roll(1, 0)).sum().backward()
        found.append([image, text, *(p.grad for p in one.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_blocks_are_the_same_function(backend):
    """In value and gradient, at any length of text, checkpointed or not. Kernels round otherwise: a few in 10^6.

    In a process of its own: the compiler cannot trace through annotations that are executed.
    """
    environment = {**os.environ, "DIPTYCH_TRUST": "tests"}
    subprocess.run([sys.executable, "-c", SCRIPT, backend], check=True, env=environment)
