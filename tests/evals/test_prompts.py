import pytest

from diptych.core.errors import EvalError
from diptych.evals.prompts import fill, read_classes, read_templates
from tests import torchvision_on_cpu


def test_the_packaged_templates():
    clip, source = read_templates("", None)
    assert (len(clip), source) == (80, "clip")
    assert len(set(clip)) == 80
    assert "a photo of a {}." in clip
    assert len(read_templates("simple", None)[0]) == 7
    assert read_templates("plain", None)[0] == ("{}",)
    assert fill("a {}.", "red {} thing") == "a red {} thing."


def test_the_packaged_templates_are_those_of_open_clip():
    torchvision_on_cpu.install()
    open_clip = pytest.importorskip("open_clip")
    assert list(read_templates("clip", None)[0]) == [t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert list(read_templates("simple", None)[0]) == [t("{}") for t in open_clip.SIMPLE_IMAGENET_TEMPLATES]


def test_labels_become_names():
    classes = read_classes("", None, ["golden_retriever", "cat", "cat"])
    assert classes.labels == ("cat", "golden_retriever")
    assert classes.names == ("cat", "golden retriever")
    assert classes.index_of("golden_retriever", "") == classes.index_of("golden retriever", "") == 1


@pytest.mark.parametrize(
    "templates,message",
    [
        (("a photo",), r"hold {} once.*got 'a photo' \(line 1"),
        (("{} and {}",), "hold {} once"),
        ((), "at least one prompt"),
        ("no/such.txt", 'must be "clip", "simple", "plain", or a text file'),
        ("clop", "must be .*'clop'"),
    ],
)
def test_bad_templates(templates, message):
    with pytest.raises(EvalError, match=message):
        read_templates(templates, None)


def test_bad_classes(tmp_path):
    with pytest.raises(EvalError, match="a label of its own; got 'crane' twice"):
        read_classes(("crane", "dog", "crane"), None, [])
    with pytest.raises(EvalError, match="a name of its own; got 'crane' twice"):
        read_classes(("n1\tcrane", "n2\tcrane"), None, [])
    with pytest.raises(EvalError, match="must have a name; got an empty one"):
        read_classes(("n1\t", "n2\tcrane"), None, [])
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvalError, match="it is not UTF-8"):
        read_classes(str(tmp_path / "x.txt"), None, [])
    with pytest.raises(EvalError, match="No such file"):
        read_classes(str(tmp_path / "y.txt"), None, [])


def test_numbers_out_of_a_csv_are_lines_unless_a_class_is_called_so():
    words = read_classes(("cat", "dog"), None, [])
    assert [words.index_of(label, "") for label in ("0", "1", 1)] == [0, 1, 1]
    with pytest.raises(EvalError, match=r"class index must lie in 0\.\.1; got 2"):
        words.index_of("2", "u")
    digits = read_classes(("1", "0"), None, [])
    assert [digits.index_of(label, "") for label in ("0", "1")] == [1, 0]
