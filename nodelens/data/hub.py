"""Hugging Face data sets, by hub name or saved folder; they need the package datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodelens.data.images import ImageOptions
from nodelens.data.text import Document
from nodelens.errors import InvalidValueError, MissingPackageError, OutputError, nearest

__all__ = ["hub_images", "hub_texts", "is_hub_name"]

_TESTS = ("test", "validation", "valid")
Rows = tuple[Tensor, Tensor]


def is_hub_name(name: str) -> bool:
    """Return whether this is a folder, or `owner/name` as on the hub, and not a file."""
    path = Path(name).expanduser()
    return path.is_dir() or ("/" in name and not path.is_file())


def hub_images(
    name: str, options: Mapping[str, Any], seed: int = 0
) -> tuple[Rows, Rows | None, str]:
    """Return images with classes to train on, those of its test split if it has one, and a note.

    `options` are those of ImageOptions, and `subset`, `image` and `label`: the data set's
    configuration and columns.
    """
    reading = ImageOptions.of(options, ("subset", "image", "label"))
    found = _loaded(name, options.get("subset"))
    parts = found if isinstance(found, Mapping) else {"train": found}
    train = parts.get("train")
    if train is None:
        raise InvalidValueError(f"{name!r} has the splits {', '.join(parts)}, expected 'train'")
    columns = (str(options.get("image", "image")), str(options.get("label", "label")))
    held = next((parts[split] for split in _TESTS if split in parts), None)
    size = reading.image_size
    note = f"images of {Path(name).name!r}, {size} x {size}"
    tested = None if held is None else _rows(held, columns, reading, seed)
    return _rows(train, columns, reading, seed), tested, note


def hub_texts(
    name: str,
    split: str,
    *,
    subset: str | None = None,
    column: str = "text",
    joined: str | None = None,
) -> Iterator[Document]:
    """Yield the rows of a split as documents, as they come; or one, with `joined` between rows.

    A hub's data set is streamed: no more is fetched than is read.
    """
    found = _loaded(name, subset, split)
    _check_columns(found, (column,))
    texts = (str(row[column]) for row in found)
    if joined is not None:
        yield Document(split, joined.join(texts))
        return
    for number, text in enumerate(texts):
        if text.strip():
            yield Document(f"{split} {number}", text)


def _loaded(name: str, subset: str | None, split: str | None = None) -> Any:
    """Return a data set, a mapping of its splits unless one is asked for."""
    datasets = _library()
    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
            return found[split] if split is not None and isinstance(found, Mapping) else found
        source = str(folder) if folder.is_dir() else name
        streaming = split is not None and not folder.is_dir()
        return datasets.load_dataset(source, subset, split=split, streaming=streaming)
    except (OSError, ValueError, KeyError) as failure:
        reason = " ".join(str(failure).split())[:300]
        raise OutputError(f"no data set could be loaded from {name!r}: {reason}") from failure


def _rows(part: Any, columns: tuple[str, str], reading: ImageOptions, seed: int) -> Rows:
    _check_columns(part, columns)
    image, label = columns
    chosen = part.select(reading.drawn(len(part), seed))
    images = torch.stack([reading.tensor(row[image]) for row in chosen])
    return images, torch.tensor([int(number) for number in chosen[label]])


def _check_columns(part: Any, columns: tuple[str, ...]) -> None:
    known = part.column_names
    for column in columns if known is not None else ():
        if column not in known:
            raise InvalidValueError(
                f"the data set has no column {column!r}{nearest(column, known)}; it has"
                f" {', '.join(known)}"
            )


def _library() -> Any:
    try:
        import datasets
    except ImportError as missing:
        raise MissingPackageError(
            f"a Hugging Face data set needs the package datasets, which is not installed"
            f" ({missing}): pip install 'nodelens[datasets]'"
        ) from missing
    return datasets
