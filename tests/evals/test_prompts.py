import json
from pathlib import Path

import pytest

from diptych.core.errors import EvalError
from diptych.evals.prompts import classes_file, fill, read_classes, read_templates, template_sets
from tests import torchvision_on_cpu
from tests.data import benchmark_files


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


COUNTS = {
    "birdsnap": 1,
    "caltech101": 34,
    "cifar10": 18,
    "cifar100": 18,
    "clevr_counts": 1,
    "country211": 5,
    "describable_textures": 8,
    "eurosat": 3,
    "facial_emotion_recognition_2013": 6,
    "fgvc_aircraft": 2,
    "flowers102": 1,
    "food101": 1,
    "gtsrb": 3,
    "hateful_memes": 1,
    "imagenet": 80,
    "kinetics700": 28,
    "kitti": 1,
    "mnist": 1,
    "oxford_pets": 1,
    "pascal_voc_2007": 1,
    "patch_camelyon": 1,
    "resisc45": 18,
    "sst2": 1,
    "stanford_cars": 8,
    "stl10": 2,
    "sun397": 2,
    "ucf101": 48,
}


def test_the_27_data_sets_of_clips_paper_have_their_templates():
    assert len(COUNTS) == 27
    assert set(template_sets()) == {*COUNTS, "clip", "simple", "plain"}
    for name, count in COUNTS.items():
        templates, source = read_templates(name, None)
        assert (len(templates), len(set(templates)), source) == (count, count, name)


SHARED = {
    "caltech101": "caltech101",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "cars": "stanford_cars",
    "country211": "country211",
    "dtd": "describable_textures",
    "eurosat": "eurosat",
    "fer2013": "facial_emotion_recognition_2013",
    "fgvc_aircraft": "fgvc_aircraft",
    "flowers": "flowers102",
    "food101": "food101",
    "gtsrb": "gtsrb",
    "imagenet1k": "imagenet",
    "kitti_closest_vehicle_distance": "kitti",
    "mnist": "mnist",
    "pets": "oxford_pets",
    "renderedsst2": "sst2",
    "stl10": "stl10",
    "sun397": "sun397",
    "voc2007": "pascal_voc_2007",
}


@pytest.mark.parametrize("theirs,ours", SHARED.items())
def test_they_are_clip_benchmarks_where_it_has_the_authors(theirs, ours):
    """It has others for clevr, pcam and resisc45, and none for the rest."""
    package = pytest.importorskip("clip_benchmark")
    file = Path(package.__path__[0]) / "datasets" / "en_zeroshot_classification_templates.json"
    found = json.loads(file.read_text("utf-8"))[theirs]
    assert sorted(read_templates(ours, None)[0]) == sorted(t.replace("{c}", "{}") for t in found)


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
        ("no/such.txt", 'must be "clip", "simple", "plain", another set by name, or a text file'),
        ("fgvc_aircrafts", "Did you mean 'fgvc_aircraft'"),
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


def test_clip_benchmarks_files_are_the_datas_own(tmp_path):
    root = benchmark_files.clip_benchmark(tmp_path)
    for folder in (root, root / "test"):
        classes = read_classes("", folder, [0, 2])
        assert (classes.names, classes.source) == (("cat", "dog", "red fox"), "classnames.txt")
        assert [classes.index_of(label, "u") for label in (2, "2", "red fox")] == [2, 2, 2]
        assert read_templates("", folder) == (("a photo of a {}.", "the {}."), "zeroshot_classification_templates.txt")
    (root / "classnames.txt").write_text("missile\nspoon\nmissile\n")  # as two classes of ImageNet's are called
    classes = read_classes("", root, [0])
    assert (classes.labels, classes.names) == (("missile (0)", "spoon", "missile (2)"), ("missile", "spoon", "missile"))
    assert [classes.index_of(n, "u") for n in (0, 1, 2)] == [0, 1, 2]
    (root / "classnames.txt").write_text("missile\n\nspoon\n")
    with pytest.raises(EvalError, match="each class must have a name; got an empty one"):
        read_classes("", root, [0])
    (root / "classes.txt").write_text("a\nb\n")
    assert read_classes("", root, [0]).names == ("a", "b")


def test_classes_beside_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\n")
    (tmp_path / "classes.txt").write_text("mug\ncup\n")
    (tmp_path / "templates.txt").write_text("a {}\n")
    spec = tmp_path / "t.csv,encoding=utf-8"
    assert read_classes("", spec, []).names == ("mug", "cup")
    assert read_templates("", spec) == (("a {}",), "templates.txt")
    assert classes_file(None) is None
