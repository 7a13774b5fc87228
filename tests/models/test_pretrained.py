import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.core.batch import Batch
from diptych.core.errors import ConfigError, DataError, EvalError
from diptych.data.tokenize import Tokenizer
from diptych.models import pretrained, sizes
from diptych.models.language_model import LanguageModelConfig
from diptych.models.pretrained import Pretrained
from tests.evals import fakes
from tests.evals.fake_painter import painter
from tests.models import test_captioner, test_coca, test_flamingo, test_prefix_lm
from tests.models.small_blip2 import small_blip2
from tests.models.towers import stir
from tests.models.writers import greedy_again, small_language, small_prefix_lm, summed


@pytest.fixture(scope="module")
def model() -> Pretrained:
    tokenizer = Tokenizer.train(["a red cup", "a blue hat"], vocab_size=300, context_length=24)
    return Pretrained(sizes.tiny().build(tokenizer.vocab_size), tokenizer, fingerprint="f")


def _picture() -> Image.Image:
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    return Image.fromarray(pixels)


def test_every_way_to_give_an_image_gives_the_same_vector(model, tmp_path):
    picture = _picture()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(buffer.getvalue())
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    many = [picture, buffer.getvalue(), path, str(path), array, tensor]
    rows = model.embed_image(many)
    assert rows.shape == (6, 256)
    assert torch.equal(rows, rows[:1].expand_as(rows))
    for one in (picture, path, array, tensor):
        assert torch.allclose(model.embed_image(one), rows[:1], atol=1e-6)  # another batch size, another rounding
    assert torch.allclose(rows.norm(dim=1), torch.ones(6), atol=1e-5)


def test_texts_and_scores(model):
    texts = model.embed_text(["a red cup", "a blue hat"])
    assert texts.shape == (2, 256)
    assert torch.allclose(model.embed_text("a red cup"), texts[:1], atol=1e-6)
    scores = model.score(_picture(), ["a red cup", "a blue hat"])
    assert torch.allclose(scores, model.embed_image(_picture()) @ texts.T, atol=1e-5)
    assert model.capabilities == ("embed_image", "embed_text", "score")


def test_batches_do_not_change_what_is_embedded(model):
    texts = [f"a red cup {i}" for i in range(7)]
    assert torch.allclose(model.embed_text(texts, batch_size=3), model.embed_text(texts), atol=1e-5)


def test_texts_are_embedded_by_their_number_of_tokens(model, monkeypatch):
    texts = ["a red cup " * (1 + i % 5) + str(i) for i in range(23)]
    whole = model.embed_text(texts)
    seen, embed = [], model.model.embed_text
    monkeypatch.setattr(model.model, "embed_text", lambda t, n: seen.append((len(n), int(n.sum()))) or embed(t, n))
    monkeypatch.setattr(pretrained, "TOKENS", {"cpu": 60})
    monkeypatch.setattr(pretrained, "TOKENIZED", 10)
    assert torch.allclose(model.embed_text(texts), whole, atol=1e-5)
    assert sum(texts for texts, _ in seen) == 23
    longest = int(model.tokenizer.batch(texts)[1].max())
    assert all(tokens < 60 + longest for _, tokens in seen)
    assert len(seen) < 23
    monkeypatch.setattr(model, "tokenizer", model.tokenizer.replaced(pad_to="context"))
    seen.clear()
    assert torch.allclose(model.embed_text(texts), whole, atol=1e-5)  # a tower that pads computes all of the context
    assert all(texts <= -(-60 // model.tokenizer.context_length) for texts, _ in seen)


def test_what_cannot_be_read_or_done_is_said(model, tmp_path):
    with pytest.raises(DataError, match="must be a file that can be read"):
        model.embed_image(tmp_path / "none.png")
    with pytest.raises(DataError):
        model.embed_image(b"not an image")


def test_embeddings_can_be_trained_on(model):
    probe = torch.nn.Linear(256, 2)
    probe(model.embed_text(["a red cup"])).sum().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([], "at least one; got an empty list"),
        (np.zeros((4, 4)), r"uint8 of shape \(height, width, 3\); got float64 \(4, 4\)"),
        (torch.zeros(3, 4, 4), r"uint8 of shape \(3, height, width\); got torch.float32"),
        (7, "a path, encoded bytes, a PIL image, an array or a tensor; got int"),
    ],
)
def test_what_is_no_image_is_said(model, image, words):
    with pytest.raises(DataError, match=words):
        model.embed_image(image)
    with pytest.raises(DataError, match="texts must be at least one"):
        model.embed_text([])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_pil_images_of_every_mode_are_taken(model, mode):
    assert model.pixels(_picture().convert(mode)).shape == (3, 32, 32)


def test_a_pil_image_is_turned_as_its_file_says(model, tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("black", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert torch.equal(model.pixels(opened), model.pixels(tmp_path / "turned.png"))
    assert not torch.equal(model.pixels(picture), model.pixels(tmp_path / "turned.png"))


TEXTS = [
    "what colour is the cup?",
    "is it a hat?",
    "a red cup",
    "a blue hat on a table",
    "yes",
    "no",
    "red",
    "dark red",
]


def _writes(config) -> Pretrained:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(TEXTS, vocab_size=300, context_length=40)
    network = config.build(tokenizer.vocab_size)
    stir(network)
    return Pretrained(network, tokenizer)


@pytest.fixture(scope="module", params=["causal", "prefix"])
def writes(request) -> Pretrained:
    return _writes(small_prefix_lm(seen=request.param, context_length=40))


def _plain_likelihood(model: Pretrained, image: torch.Tensor, question: str, answer: str) -> float:
    """log p of an answer and its end from one forward pass over the whole row."""
    question_ids, answer_ids = model.tokenizer.bare([question, answer])
    row = torch.tensor([[model.tokenizer.start_id, *question_ids, *answer_ids, model.tokenizer.end_id]])
    bears = torch.zeros_like(row, dtype=torch.bool)
    bears[0, 1 + len(question_ids) :] = True
    pixels = model.pixels(image)[None]
    batch = Batch(images=pixels, image_record=torch.tensor([0]), tokens=row, lengths=torch.tensor([row.shape[1]]))
    return summed(model.model, replace(batch, loss_mask=bears))[0].item()


def test_answers_are_as_probable_as_one_forward_pass_says(writes):
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    questions, answers = TEXTS[:2], ["yes", "red", "dark red", "a blue hat"]
    found = writes.answer_log_likelihoods(images, questions * 2, answers, image_of=[0, 0, 1, 1], batch_size=3)
    slow = [[_plain_likelihood(writes, images[i], q, a) for a in answers] for i in (0, 1) for q in questions]
    assert torch.allclose(found, torch.tensor(slow), atol=1e-4)  # fp32 sums in another order
    assert torch.allclose(writes.answer_scores(images, questions, answers).sum(1), torch.ones(2))
    assert writes.ask(images[0], questions, answers) == [answers[i] for i in found[:2].argmax(1).tolist()]
    assert writes.ask(images, questions[0], answers) == [answers[i] for i in found[::2].argmax(1).tolist()]
    assert writes.ask(images, questions, answers) == [answers[i] for i in found[[0, 3]].argmax(1).tolist()]


KINDS = {
    "captioner": test_captioner.KINDS["plain"],
    "coca": test_coca.KINDS["cascade"],
    "coca/legacy": test_coca.KINDS["legacy"],
    "flamingo": test_flamingo.SMALL,
    "frozen": test_prefix_lm.KINDS["frozen"],
    "blip2": small_blip2(),
    "language_model": LanguageModelConfig(language=small_language(), image_format=test_flamingo.SMALL.image_format),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_as_one_forward_pass_says(kind):
    model = _writes(KINDS[kind].replace(context_length=40))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    questions, answers = TEXTS[:2], ["yes", "dark red", "a blue hat"]
    found = model.answer_log_likelihoods(images, questions, answers)
    slow = [[_plain_likelihood(model, i, q, a) for a in answers] for i, q in zip(images, questions, strict=True)]
    assert torch.allclose(found, torch.tensor(slow), atol=2e-4)  # fp32 sums in another order
    prompts = [[model.tokenizer.start_id, *ids] for ids in model.tokenizer.bare(questions)]
    said = [greedy_again(model.model, i, p, model.tokenizer.end_id, 4) for i, p in zip(images, prompts, strict=True)]
    assert model.ask(images, questions, max_tokens=4) == [model.tokenizer.decode(s).strip() for s in said]


def test_what_is_written_goes_on_from_the_prompt(writes):
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    start, end = writes.tokenizer.start_id, writes.tokenizer.end_id
    for prompt in ("", "a red cup"):
        ids = [start, *writes.tokenizer.bare([prompt])[0]]
        for most in (1, 6):
            said = [greedy_again(writes.model, image, ids, end, most) for image in images]
            slow = [writes.tokenizer.decode(s).strip() for s in said]
            assert writes.generate(images, prompt or None, batch_size=2, max_tokens=most) == slow
            assert writes.caption(images, prompt, max_tokens=most) == [f"{prompt} {rest}".strip() for rest in slow]
    assert writes.caption(images[0]) == writes.caption(images)[:1]
    assert writes.ask(images[0], ["a red cup"]) == writes.generate(images[0], "a red cup")
    assert len(writes.generate(images, beams=3, max_tokens=4)) == 3


def test_draws_follow_their_seed(writes):
    images = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
    how = {"temperature": 3.0, "max_tokens": 6, "batch_size": 2}
    first = writes.generate(images, seed=1, **how)
    assert first == writes.generate(images, seed=1, **how)
    assert first != writes.generate(images, seed=2, **how)
    assert len(set(first)) > 1, "equal images are drawn for apart, in other batches too"


def test_an_image_is_seen_once_for_all_its_questions(writes, monkeypatch):
    seen, vectors = [], writes.model.image_vectors
    monkeypatch.setattr(writes.model, "image_vectors", lambda images: seen.append(len(images)) or vectors(images))
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    writes.ask(image, TEXTS[:2] * 3, ["yes", "no"])
    writes.ask(image, TEXTS[:2] * 3, max_tokens=1)
    assert seen == [1, 1]


def test_a_question_too_long_loses_its_end_and_is_counted(writes):
    image, before = torch.zeros(3, 16, 16, dtype=torch.uint8), writes.tokenizer.truncated
    assert writes.answer_scores(image, "is it a hat? " * 9, ["yes", "a blue hat"]).shape == (1, 2)
    assert writes.tokenizer.truncated == before + 1


def test_what_cannot_be_asked_is_said(model, writes):
    with pytest.raises(
        EvalError, match=r"generating text must be asked of a model that writes; got TwoTower with embed.*coca:tiny"
    ):
        model.caption(_picture())
    with pytest.raises(EvalError, match="answering must be asked of a model that writes"):
        model.ask(_picture(), "is it a hat?", ["yes", "no"])
    two = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(DataError, match="one an image, or one for all, or be about one image; got 3 for 2"):
        writes.ask(two, TEXTS[:3])
    with pytest.raises(DataError, match="image_of must name an image for each text; got 1 for 2 prompts"):
        writes.generate(two, TEXTS[:2], image_of=[0])
    with pytest.raises(ConfigError, match="beams must be 1 where tokens are drawn"):
        writes.generate(two, beams=2, top_p=0.5)
    with pytest.raises(ConfigError, match="Generation must have only fields that it knows; got 'beam'"):
        writes.generate(two, beam=2)
    without = Pretrained(writes.model, writes.tokenizer.replaced(start_id=None))
    with pytest.raises(EvalError, match="a tokenizer must have a start and an end to write with; got no start"):
        without.caption(two)


def test_texts_are_painted_in_batches_each_with_draws_of_its_own():
    known = torch.full((3, 8, 8), 7, dtype=torch.uint8)
    model = painter({"a": known})
    texts = ["x", "a", "y", "x", "z"]
    whole, parts = model.paint(texts, seed=2), model.paint(texts, batch_size=2, seed=2)
    assert whole.shape == (5, 3, 8, 8)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, parts), "what is beside a text changes nothing"
    assert torch.equal(whole[1], known)
    assert not torch.equal(whole[0], whole[3]), "the same text twice is drawn twice"
    assert torch.equal(model.paint(texts[2:], seed=2, first=2), whole[2:])
    assert torch.equal(model.paint("x", seed=2), whole[:1])
    with pytest.raises(EvalError, match="painting must be given a model with generate_image"):
        fakes.model().paint("x")
    with pytest.raises(ConfigError, match="Did you mean 'guidance'"):
        model.paint("x", guidence=3)
