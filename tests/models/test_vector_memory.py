"""What was embedded once is not embedded again, whoever asks, and comes back bit for bit."""

import pytest
import torch

from diptych.core.errors import DataError
from diptych.models.vector_memory import VectorMemory, image_key, text_key
from tests.evals import fakes


def test_vectors_come_back_bit_for_bit_from_other_processes(tmp_path):
    one, rows = VectorMemory(tmp_path), torch.randn(5, 3)
    keys = [text_key(f"text {i}") for i in range(5)]
    assert one.missing("text", [*keys, keys[0]]) == [0, 1, 2, 3, 4]
    one.add("text", keys[:3], rows[:3])
    one.save()
    two = VectorMemory(tmp_path)
    assert two.missing("text", keys) == [3, 4]
    two.add("text", keys[3:], rows[3:])
    two.save()
    one.refresh()
    for memory in (one, two, VectorMemory(tmp_path)):
        assert torch.equal(memory.get("text", [keys[4], keys[0], keys[4]]), rows[[4, 0, 4]])
    assert one.missing("image", keys) == [0, 1, 2, 3, 4]
    assert (one.computed, two.computed) == ({"text": 3}, {"text": 2})
    assert not list(tmp_path.glob("*.part"))


def test_what_was_done_to_an_image_is_part_of_its_key():
    digest = bytes(range(16))
    assert image_key(digest) == digest
    assert len({image_key(digest), image_key(digest, "noise 1"), image_key(digest, "noise 2")}) == 3


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "text-00.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"text-00\.npz must hold keys and vectors; got .*Delete it"):
        VectorMemory(tmp_path)


def test_a_model_with_a_memory_embeds_each_text_once():
    model = fakes.model(fakes.Embeds, True)
    texts = ["thing 1", "thing 2", "thing 1"]
    plain = model.embed_text(texts)
    model.memory = VectorMemory()
    assert torch.equal(model.embed_text(texts), plain)
    assert torch.equal(model.embed_text(texts[::-1]), plain.flip(0))
    assert model.memory.computed == {"text": 2}


def test_what_lies_in_order_is_not_copied(tmp_path):
    memory, rows = VectorMemory(tmp_path), torch.randn(9, 4)
    keys = [text_key(f"text {i}") for i in range(9)]
    for part in (slice(0, 4), slice(4, 9)):
        memory.add("text", keys[part], rows[part])
    whole = memory.get("text", keys)
    assert torch.equal(whole, rows)
    assert memory.get("text", keys[2:6]).untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    memory.save()
    mapped = memory.get("text", keys)
    assert torch.equal(mapped, rows)
    assert mapped.untyped_storage().data_ptr() == memory.get("text", keys[3:]).untyped_storage().data_ptr()
    memory.add("text", [text_key("one more")], rows[:1] + 1)  # beside those of a file
    assert torch.equal(memory.get("text", [text_key("one more"), keys[8]]), torch.stack([rows[0] + 1, rows[8]]))
    memory.save()
    assert len(list(tmp_path.glob("*.npz"))) == 2
    again = VectorMemory(tmp_path)
    assert torch.equal(again.get("text", [keys[8], text_key("one more")]), torch.stack([rows[8], rows[0] + 1]))


def test_what_others_have_saved_meanwhile_is_known_once(tmp_path):
    one, two, rows = VectorMemory(tmp_path), VectorMemory(tmp_path), torch.randn(3, 2)
    keys = [text_key(str(i)) for i in range(3)]
    one.add("text", keys, rows)
    two.add("text", keys[::-1], rows.flip(0))
    one.save()
    two.refresh()  # it holds them too, and not yet in a file
    two.save()
    two.refresh()
    assert torch.equal(two.get("text", keys), rows)
    assert torch.equal(VectorMemory(tmp_path).get("text", keys), rows)
