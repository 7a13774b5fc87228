"""COCO's annotation files: captions, and the boxes of things, a record an image (Lin et al., arXiv:1405.0312).

    {"images": [{"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426}],
     "annotations": [{"image_id": 139, "caption": "A room."}]}                           captions_val2017.json
    {..., "annotations": [{"image_id": 139, "category_id": 64, "bbox": [x, y, w, h]}],
     "categories": [{"id": 64, "name": "potted plant"}]}                                  instances_val2017.json
    {"images": [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": "A room."}]}]}   dataset_flickr30k.json

The last is the form of Karpathy and Li's splits of COCO, Flickr8k and Flickr30k (arXiv:1412.2306).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.core.errors import DataError
from diptych.core.record import Record, Segment
from diptych.data.image_folder import LOOKED_AT, find_image_folder
from diptych.data.json_documents import document, first_item, head_of, listed
from diptych.data.json_rows import plain_meta
from diptych.data.record_files import printable
from diptych.data.rows import suffix_of
from diptych.data.sources.source import Look, Reject, Source, SourceConfig, read_file

BULKY = frozenset({"segmentation", "tokens", "counts"})


def recognises(found: Look) -> bool:
    """Whether this is a .json whose list of images, or of annotations of them, has COCO's fields."""
    if not found.is_file or found.suffix != "json":
        return False
    head = head_of(found.path)
    image, annotation = first_item(head, "images"), first_item(head, "annotations")
    named = {"id", "file_name"} <= image.keys() or {"filename", "sentences"} <= image.keys()
    return named or ("image_id" in annotation and bool({"caption", "bbox"} & annotation.keys()))


class CocoConfig(SourceConfig):
    """Images lie in `image_root`, else in the folder called as the file's split (val2017) or another near it.

    `captions` and `instances` name a second file, beside the first, to be read into the same records: captions with
    the names and boxes of what is in the picture.
    """

    path: str
    image_root: str = ""
    captions: str = ""
    instances: str = ""
    images_only: bool = False

    def build(self) -> "Coco":
        """The source."""
        return Coco(self)


class Coco(Source):
    """A record an image in the file's order, keyed by its id: its captions as alternatives of one text.

    Meta: image, image_id, width, height; of instances `objects` (the distinct names, in the order of their first
    annotation) and `boxes` ({"name", "box": [left, top, right, bottom] in pixels}, with "crowd": true for COCO's
    crowds).
    """

    config: CocoConfig

    def __init__(self, config: CocoConfig) -> None:
        self.config = config
        self.images_only = config.images_only
        self.path = Path(config.path)

    def records(self) -> Iterator[Record | Reject]:
        """The images with what is said of them. Raises DataError where the images' folder cannot be found."""
        whole = document(self.path, "a COCO file", BULKY)
        images = listed(whole, "images", self.path)
        captions, boxes, has_boxes = self._annotations(whole)
        root = find_image_folder(
            [(_file(i), _file(i).rpartition("/")[2]) for i in images[:LOOKED_AT]],
            self.path,
            self.config.image_root,
            self._hints(images),
        )
        seen: set[str] = set()
        for place, image in enumerate(images):
            name, key = _file(image), str(image.get("id", image.get("imgid", place)))
            where = f"{self.path} image {key}"
            if key in seen or not name:
                reason = ("duplicate_key", "an id of its own") if key in seen else ("no_image", "a file name")
                yield Reject(f"{key}-{place}", f"an image must have {reason[1]}; {key} has not.", reason[0], where)
                continue
            seen.add(key)
            file = root / name if (root / name).is_file() else root / name.rpartition("/")[2]
            data = read_file(file, key, self.max_bytes)
            if isinstance(data, Reject):
                yield data
                continue
            said = captions.get(key, []) + _sentences(image)
            meta = _meta(image, name)
            if has_boxes:
                meta["boxes"] = boxes.get(key, [])
                meta["objects"] = list(dict.fromkeys(b["name"] for b in meta["boxes"]))
            segments: tuple[Segment, ...] = (Segment("image", data, suffix_of(name), role="image"),)
            if said:
                segments += (Segment("text", tuple(said), "txt", role="caption"),)
            yield Record(key, segments, meta)

    def where(self, key: str) -> str:
        """The image in the file."""
        return f"{self.path} image {key}"

    def _annotations(self, whole: dict[str, Any]) -> tuple[dict[str, list[str]], dict[str, list[Any]], bool]:
        """({image id: captions}, {image id: boxes}, whether there are boxes) of this file and those beside it."""
        beside = [self.path.parent / p for p in (self.config.captions, self.config.instances) if p]
        captions: dict[str, list[str]] = {}
        boxes: dict[str, list[Any]] = {}
        has_boxes = False
        for one in (whole, *(document(p, "a COCO file", BULKY) for p in beside)):
            names = {c.get("id"): str(c.get("name")) for c in one.get("categories") or [] if isinstance(c, dict)}
            for a in one.get("annotations") or []:
                if not isinstance(a, dict):
                    raise DataError(f"an annotation of {self.path} must be an object; got {a!r}. Download it again.")
                key = str(a.get("image_id"))
                if isinstance(a.get("caption"), str):
                    captions.setdefault(key, []).append(a["caption"])
                elif _is_box(a.get("bbox")):
                    has_boxes = True
                    boxes.setdefault(key, []).append(_box(a, names))
        return captions, boxes, has_boxes

    def _hints(self, images: list[dict[str, Any]]) -> list[str]:
        """Folders that the images probably lie in: COCO's are called as the end of the annotation file's name."""
        return list(
            dict.fromkeys([self.path.stem.rpartition("_")[2], *(str(i.get("filepath", "")) for i in images[:1])])
        )


def _file(image: dict[str, Any]) -> str:
    name = str(image.get("file_name") or image.get("filename") or "")
    folder = image.get("filepath")
    return f"{folder}/{name}" if name and isinstance(folder, str) and folder else name


def _sentences(image: dict[str, Any]) -> list[str]:
    listed_here = image.get("sentences")
    if not isinstance(listed_here, list):
        return []
    return [s["raw"] for s in listed_here if isinstance(s, dict) and isinstance(s.get("raw"), str)]


def _meta(image: dict[str, Any], name: str) -> dict[str, Any]:
    meta = plain_meta(image, ("id", "imgid", "file_name", "filename", "filepath", "coco_url", "flickr_url"))
    number = image.get("id", image.get("cocoid"))
    if isinstance(number, int):
        meta["image_id"] = number
    return {**meta, "image": printable(name)}


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(v, (int, float)) for v in value)


def _box(annotation: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    left, top, width, height = (float(v) for v in annotation["bbox"])
    number = annotation.get("category_id")
    box = {"name": names.get(number, str(number)), "box": [left, top, left + width, top + height]}
    return {**box, "crowd": True} if annotation.get("iscrowd") else box
