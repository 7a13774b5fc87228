"""Tiny copies of the files in which benchmarks come, with pictures that are known by their number."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.pictures import png


def pictures(folder: Path, *names: str) -> Path:
    """Picture i under the i-th name."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(i))
    return folder


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def coco(root: Path, count: int = 3, lost: int = 0) -> Path:
    """annotations/captions_val2017.json and instances_val2017.json, and images in val2017; `lost` have no file."""
    names = [f"{i:012d}.jpg" for i in range(count + lost)]
    pictures(root / "val2017", *names[:count])
    images = [
        {"license": 3, "file_name": n, "coco_url": "http://x/y.jpg", "height": 24, "width": 32, "id": i}
        for i, n in enumerate(names)
    ]
    says = [{"image_id": i % len(names), "id": 90 + i, "caption": f"caption {i}"} for i in range(2 * len(names))]
    boxes = [
        {"segmentation": [[1, 2, 3]], "iscrowd": 0, "image_id": 0, "bbox": [1, 2, 10, 5.5], "category_id": 64, "id": 1},
        {"segmentation": {"counts": [1]}, "iscrowd": 1, "image_id": 0, "bbox": [0, 0, 9, 9], "category_id": 2, "id": 2},
        {"segmentation": [[1, 2, 3]], "iscrowd": 0, "image_id": 0, "bbox": [3, 3, 4, 4], "category_id": 64, "id": 3},
    ]
    head = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "CC"}], "images": images}
    write(root / "annotations" / "instances_val2017.json", {**head, "annotations": boxes, "categories": CATEGORIES})
    return write(root / "annotations" / "captions_val2017.json", {**head, "annotations": says})


CATEGORIES = [{"supercategory": "x", "id": 64, "name": "potted plant"}, {"supercategory": "x", "id": 2, "name": "cat"}]


def karpathy(root: Path) -> Path:
    """dataset_flickr30k.json with three images in three splits."""
    pictures(root / "images", "a.jpg", "b.jpg", "c.jpg")
    images = [
        {"sentids": [0], "imgid": i, "filename": f"{n}.jpg", "split": split, "sentences": [_sentence(f"caption {i}")]}
        for i, (n, split) in enumerate((("a", "train"), ("b", "val"), ("c", "test")))
    ]
    return write(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def _sentence(text: str) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": text, "imgid": 0, "sentid": 0}


def people(*answers: str) -> list[dict[str, Any]]:
    """Ten people's answers, the last repeated."""
    ten = [*answers, *[answers[-1]] * (10 - len(answers))]
    return [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(ten, 1)]


def vqa(root: Path, count: int = 2, lost: int = 0) -> Path:
    """v2's two files, two questions an image."""
    pictures(root / "val2014", *(f"COCO_val2014_{i:012d}.jpg" for i in range(count)))
    questions, annotations = [], []
    for i in range(count + lost):
        for n, text in enumerate((f"caption {i}", "Is it red?")):
            questions.append({"image_id": i, "question": text, "question_id": 10 * i + n})
            annotations.append(
                {
                    "question_type": "is it" if n else "what",
                    "multiple_choice_answer": "yes" if n else f"answer {i}",
                    "answers": people("no", "yes") if n else people(f"answer {i}"),
                    "image_id": i,
                    "answer_type": "yes/no" if n else "other",
                    "question_id": 10 * i + n,
                }
            )
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "val2014"}
    write(root / "v2_mscoco_val2014_annotations.json", {**head, "annotations": annotations})
    return write(root / "v2_OpenEnded_mscoco_val2014_questions.json", {**head, "questions": questions})


def sugarcrepe(root: Path, test: str = "swap_obj", count: int = 3, lost: int = 0) -> Path:
    """One of the seven files, with keys that are not contiguous, and COCO's images."""
    names = [f"{i:012d}.jpg" for i in range(count + lost)]
    pictures(root / "val2017", *names[:count])
    rows = {
        str(2 * i): {"filename": n, "caption": f"caption {i}", "negative_caption": f"wrong {test} {i}"}
        for i, n in enumerate(names)
    }
    return write(root / f"{test}.json", rows)


def valse(root: Path) -> Path:
    """actions with three examples, of which the last has too few votes."""
    pictures(root / "images" / "SWiG", "a.jpg", "b.jpg", "c.jpg")
    rows = {
        f"actions_test_{i}": {
            "dataset": "SWiG",
            "original_split": "test",
            "dataset_idx": f"{n}.jpg",
            "linguistic_phenomena": "actions",
            "image_file": f"{n}.jpg",
            "caption": f"caption {i}",
            "foil": f"wrong {i}",
            "classes": "man",
            "mturk": {"foil": 3 - votes, "caption": votes, "other": 0},
        }
        for i, (n, votes) in enumerate((("a", 3), ("b", 2), ("c", 1)))
    }
    return write(root / "actant-swap.json", rows)


def aro(root: Path) -> Path:
    """visual_genome_attribution.json: examples are about a box of their image."""
    pictures(root / "images", "1.jpg", "2.jpg")
    box = {"bbox_x": 8, "bbox_y": 0, "bbox_w": 16, "bbox_h": 8}
    rows = [
        {
            "image_id": i,
            "image_path": f"{i}.jpg",
            "true_caption": f"caption {i}",
            "false_caption": f"wrong {i}",
            "attributes": ["white", "old"],
            **box,
        }
        for i in (1, 2)
    ]
    return write(root / "visual_genome_attribution.json", rows)


def winoground(root: Path, count: int = 2, lost: int = 0) -> Path:
    """examples.jsonl and images, which the file names without their ending."""
    pictures(root / "images", *(f"ex_{i}_img_{n}.png" for i in range(count) for n in (0, 1)))
    rows = [
        {
            "id": i,
            "image_0": f"ex_{i}_img_0",
            "image_1": f"ex_{i}_img_1",
            "caption_0": f"caption {2 * i}",
            "caption_1": f"caption {2 * i + 1}",
            "tag": "Noun",
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": "Object",
        }
        for i in range(count + lost)
    ]
    return write_lines(root / "examples.jsonl", *rows)


def pope(root: Path, category: str = "random", count: int = 2, lost: int = 0) -> Path:
    """coco_pope_random.json: an object a line, two questions an image."""
    names = [f"COCO_val2014_{i:012d}.jpg" for i in range(count + lost)]
    pictures(root / "val2014", *names[:count])
    rows = [
        {"question_id": 2 * i + n + 1, "image": name, "text": text, "label": "no" if n else "yes"}
        for i, name in enumerate(names)
        for n, text in enumerate((f"caption {i}", "Is there a cat in the image?"))
    ]
    return write_lines(root / f"coco_pope_{category}.json", *rows)


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar of those members in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def npy(*values: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values))
    return buffer.getvalue()


def clip_benchmark(root: Path, task: str = "classification", broken: bool = False) -> Path:
    """A folder of a test split with two tars of two samples, a third one in the first tar if `broken`."""
    labels = {
        "classification": [("cls", str(i % 3).encode()) for i in range(4)],
        "multilabel": [("npy", npy(1, i % 2, 0)) for i in range(4)],
        "retrieval": [("txt", f"caption {i}\nagain {i}".encode()) for i in range(4)],
    }[task]
    for number in (0, 1):
        members: list[tuple[str, bytes]] = []
        for i in (2 * number, 2 * number + 1):
            members += [(f"s{i:07d}.{labels[i][0]}", labels[i][1]), (f"s{i:07d}.png", png(i))]
        if broken and number == 0:
            members += [("s9.png", png(9)), ("s9.json", b"{}")]
        tar(root / "test" / f"{number}.tar", *members)
    (root / "test" / "nshards.txt").write_text("2\n")
    if task != "classification":
        (root / "dataset_type.txt").write_text(task)
    if task != "retrieval":
        (root / "classnames.txt").write_text("cat\ndog\nred fox\n")
        (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nthe {c}.\n")
    return root
