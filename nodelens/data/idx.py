"""MNIST proper, from the IDX files in which it is handed out (LeCun, Cortes and Burges 1998)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodelens.errors import InvalidValueError

__all__ = ["read_idx", "read_mnist"]

_PARTS = ("train", "t10k")


def read_mnist(folder: Path) -> tuple[Tensor, Tensor, str]:
    """Return all images in `[0, 1]`, `(images, 1, rows, columns)`, their classes, and a note.

    Raises InvalidValueError for a file that is missing or no IDX file.
    """
    home = folder.expanduser()
    home = home / "MNIST" / "raw" if (home / "MNIST" / "raw").is_dir() else home
    pixels = np.concatenate([read_idx(_find(home, f"{p}-images-idx3-ubyte")) for p in _PARTS])
    classes = np.concatenate([read_idx(_find(home, f"{p}-labels-idx1-ubyte")) for p in _PARTS])
    if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
        raise InvalidValueError(
            f"the MNIST files hold images {pixels.shape} and classes {classes.shape}, expected"
            " images x rows x columns and a class an image"
        )
    images = torch.from_numpy(pixels / np.float32(255)).unsqueeze(1)
    note = f"MNIST: {len(images):,} images of {pixels.shape[1]} x {pixels.shape[2]}"
    return images, torch.from_numpy(classes.astype(np.int64)), note


def read_idx(path: Path) -> np.ndarray:
    """Return the bytes of an IDX file as an array of the shape it declares, uint8."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as failure:
        raise InvalidValueError(f"{path.name!r} cannot be read: {failure}") from failure
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = tuple(np.frombuffer(data[4 : 4 + 4 * axes], dtype=">u4").tolist())
    content = np.frombuffer(data[4 + 4 * axes :], dtype=np.uint8)
    if not axes or len(shape) != axes or int(np.prod(shape)) != len(content):
        raise InvalidValueError(f"{path.name!r} is no IDX file of bytes, or is cut off")
    return content.reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidValueError(
        f"{str(folder)!r} has no {name!r}, gzipped or not; expected the four IDX files of MNIST"
    )
