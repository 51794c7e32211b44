"""MNIST proper from its IDX files, and the packaged slice where they are not."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from nodelens.data.datasets import load_dataset
from nodelens.data.idx import read_mnist
from nodelens.errors import InvalidValueError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, *, zipped: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 4, 3), dtype=np.uint8)
    classes = (np.arange(30) % 3).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in {"train": slice(0, 20), "t10k": slice(20, 30)}.items():
        for name, array in {"images-idx3": images, "labels-idx1": classes}.items():
            data = idx(array[rows])
            file = folder / f"{part}-{name}-ubyte{'.gz' * zipped}"
            file.write_bytes(gzip.compress(data) if zipped else data)
    return images, classes


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("under", ["", "MNIST/raw"])
def test_images_and_classes_come_as_they_were_written(tmp_path, zipped, under):
    images, classes = write(tmp_path / under, zipped=zipped)
    found, labels, note = read_mnist(tmp_path)
    torch.testing.assert_close(found, torch.from_numpy(images / 255.0).float()[:, None])
    assert labels.tolist() == classes.tolist() and note == "MNIST: 30 images of 4 x 3"


def test_a_folder_takes_the_place_of_the_package(tmp_path):
    write(tmp_path, zipped=True)
    mnist = load_dataset("mnist", test_fraction=0.2, folder=tmp_path)
    assert (len(mnist.train), len(mnist.test), mnist.shape) == (24, 6, (1, 4, 3))


def test_what_is_no_mnist_is_told(tmp_path):
    with pytest.raises(InvalidValueError, match="has no 'train-images-idx3-ubyte', gzipped or not"):
        load_dataset("mnist", folder=tmp_path)
    write(tmp_path, zipped=False)
    file = tmp_path / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidValueError, match=r"'t10k-labels-idx1-ubyte' is no IDX file .* cut"):
        read_mnist(tmp_path)
    with pytest.raises(InvalidValueError, match="'digits' is read from a package, expected no"):
        load_dataset("digits", folder=tmp_path)
