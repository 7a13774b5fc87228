from contextlib import contextmanager

import pytest
import torch

from diptych.train import prefetch
from diptych.train.prefetch import on_device, tensors
from tests.objectives.tiny_model import tiny_batch

CPU = torch.device("cpu")


def test_on_a_cpu_batches_pass_as_they_are_one_at_a_time():
    asked = []

    def source():
        for seed in range(3):
            asked.append(seed)
            yield tiny_batch(seed=seed)

    found = on_device(source(), CPU)
    for seed in range(3):
        one = next(found)
        assert asked == list(range(seed + 1))  # none is read ahead of its turn
        assert torch.equal(one.images, tiny_batch(seed=seed).images)
    plain, last = tiny_batch(), next(on_device(iter([tiny_batch()]), CPU, channels_last=True))
    assert last.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.images, plain.images)


def test_every_tensor_is_handed_over():
    batch = tiny_batch()
    own = {v.data_ptr() for v in vars(batch).values() if isinstance(v, torch.Tensor)}
    assert {t.data_ptr() for t in tensors(batch)} == own


def test_copies_are_waited_for_on_the_device_and_in_their_own_stream(monkeypatch):
    """With streams that only note what happens."""
    log = []

    class Stream:
        device = CPU

        def wait_stream(self, other):
            log.append("wait")

    @contextmanager
    def inside(stream):
        log.append("enter")
        yield
        log.append("leave")

    monkeypatch.setattr(prefetch.torch.cuda, "stream", inside)
    monkeypatch.setattr(prefetch.torch.cuda, "current_stream", lambda device: Stream())

    def place(batch):
        log.append("copy")
        return batch

    beside = getattr(prefetch._beside, "__wrapped__", prefetch._beside)  # without the annotations: Stream is none
    for _ in beside(iter([tiny_batch(), tiny_batch()]), place, Stream()):
        log.append("step")
    assert log == ["enter", "copy", "leave", "wait", "step"] * 2


@pytest.mark.gpu
def test_batches_arrive_whole_on_a_gpu():
    device = torch.device("cuda")
    batches = [tiny_batch(seed=s).pin_memory() for s in range(8)]
    for one, plain in zip(on_device(iter(batches), device), batches, strict=True):
        torch.cuda._sleep(1_000_000)  # the device is busy while the next is copied
        assert torch.equal(one.images.cpu(), plain.images)
        assert one.lengths.device == CPU
