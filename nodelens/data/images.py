"""Images of a folder as tensors of one size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, UnknownOptionError, nearest
from nodelens.files import package_folder

__all__ = ["ImageOptions", "packaged_photos", "read_images"]

_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_NUMBERED = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class ImageOptions:
    """How images are read: as RGB in [0, 1], their shorter side `image_size`, the middle cut out.

    `mean` is subtracted and the rest divided by `deviation`, one number or one a colour. Of more
    images than `rows`, so many are drawn by the seed.
    """

    image_size: int = 224
    mean: float | Sequence[float] = 0.0
    deviation: float | Sequence[float] = 1.0
    rows: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], others: Sequence[str] = ()) -> ImageOptions:
        """Return those of `options` that are of reading images; UnknownOptionError for a stray."""
        own = [field.name for field in fields(cls)]
        for name in options:
            if name not in own and name not in others:
                valid = [*own, *others]
                raise UnknownOptionError(
                    f"no option {name!r} of reading images{nearest(name, valid)}; expected one of"
                    f" {', '.join(valid)}"
                )
        return cls(**{name: value for name, value in options.items() if name in own})

    def tensor(self, image: Any) -> Tensor:
        """Return a PIL image as `(3, image_size, image_size)`."""
        scale, size = self.image_size / min(image.size), self.image_size
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        cut = image.convert("RGB").resize((width, height))
        cut = cut.crop((left, top, left + size, top + size))
        pixels = torch.from_numpy(np.asarray(cut, dtype=np.float32).copy()) / 255
        mean, deviation = (torch.as_tensor(v).float() for v in (self.mean, self.deviation))
        return ((pixels - mean) / deviation).permute(2, 0, 1).contiguous()

    def drawn(self, total: int, seed: int) -> list[int]:
        """Return the numbers of the rows to read, in order."""
        if self.rows is None or self.rows >= total:
            return list(range(total))
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        return sorted(order[: self.rows].tolist())


def read_images(
    source: Path | Sequence[Path], options: ImageOptions, seed: int = 0
) -> tuple[Tensor, Tensor, str]:
    """Return images `(rows, 3, size, size)`, their classes, and a note.

    `source` is files whose names end in `_` and the number of the class, a folder of such, or one
    with a folder a class, which are numbered in the order of their names. Raises InvalidValueError
    for a folder without images and for a file that is none.
    """
    found = _classed(source) if isinstance(source, Path) else [(f, _number(f)) for f in source]
    if not found:
        raise InvalidValueError(
            f"no images in {Path(str(source)).name!r}, expected a folder a class, or files whose"
            " names end in _ and the number of the class"
        )
    found = [found[row] for row in options.drawn(len(found), seed)]
    images = torch.stack([_opened(file, options) for file, _ in found])
    size = options.image_size
    note = f"{len(found):,} images from files, {size} x {size}"
    return images, torch.tensor([number for _, number in found]), note


def packaged_photos() -> list[Path]:
    """Return the 20 photographs of ImageNet that come with foolbox, a class in each name."""
    folder = package_folder("foolbox", "data set 'imagenet_photos'")
    return sorted((folder / "data").glob("imagenet_*.jpg"))


def _classed(folder: Path) -> list[tuple[Path, int]]:
    if not folder.is_dir():
        raise InvalidValueError(f"{str(folder)!r} is no folder, expected one with images")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        return [(file, _number(file)) for file in _files(folder)]
    return [(file, number) for number, home in enumerate(classes) for file in _files(home)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)


def _number(file: Path) -> int:
    found = _NUMBERED.search(file.stem)
    if found is None:
        raise InvalidValueError(
            f"the name of {file.name!r} does not end in _ and the number of its class; expected"
            " that, or a folder a class"
        )
    return int(found[1])


def _opened(file: Path, options: ImageOptions) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return options.tensor(image)
    except (OSError, UnidentifiedImageError) as failure:
        raise InvalidValueError(f"{file.name!r} is no image: {failure}") from failure
