"""The language model of a configuration, and its text as blocks of tokens in three parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nodelens.configs import Config
from nodelens.data.hub import hub_texts, is_hub_name
from nodelens.data.text import Document, load_text, text_names, token_blocks
from nodelens.errors import (
    ConfigError,
    InvalidValueError,
    NodeLensError,
    TooFewRowsError,
    UnknownNameError,
    nearest,
)
from nodelens.experiments.splits import Splits
from nodelens.model.loading import load_model, load_tokenizer
from nodelens.model.packaged import packaged_model, packaged_names

__all__ = [
    "BLOCK_SIZE",
    "Blocks",
    "load_language_model",
    "load_text_splits",
    "loading_options",
    "shown_name",
    "tokenizer_of",
]

BLOCK_SIZE = 256
"""Tokens in a block where the configuration does not say."""


class Blocks(TensorDataset):
    """Blocks of tokens; an item is what a model takes, by keyword."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the tokens of a block, all of which count."""
        tokens = self.tensors[0][index]
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def load_language_model(config: Config) -> nn.Module:
    """Return the model that `model.name` means, with its own weights, in evaluation mode.

    Raises ConfigError, with file and line, when there is none.
    """
    options, source = {"dtype": "float32", **loading_options(config)}, _source(config)
    try:
        model = load_model(source, **options)
    except (NodeLensError, TypeError) as error:
        raise config.error(("model", "name"), str(error)) from error
    head = getattr(model.module, "get_output_embeddings", lambda: None)
    if head() is None:
        raise config.error(("model", "name"), f"{config.model.name!r} has no language model's head")
    return model.module.eval()


def load_text_splits(config: Config) -> Splits:
    """Return the text of a configuration as blocks: training, then validation, then test.

    Parts are whole stretches of text, so that no block continues one of another part but at the two
    borders.
    """
    dataset = config.dataset
    size = dataset.block_size or BLOCK_SIZE
    tokenizer = tokenizer_of(config)
    try:
        parts = _parts(config, tokenizer, size)
    except ConfigError:
        raise
    except (InvalidValueError, TooFewRowsError) as error:
        raise config.error(("dataset", "tokens"), str(error)) from error
    train, validation, test = (Blocks(part) for part in parts)
    blocks = torch.cat(parts)
    rows = config.calibration.rows
    if rows is not None and rows > len(train):
        raise config.error(
            ("calibration", "rows"),
            f"{rows} blocks, but the training part of {dataset.name!r} has {len(train)}",
        )
    return Splits(
        name=Path(dataset.name).name,
        note=f"{blocks.numel():,} tokens of {Path(dataset.name).name!r} in blocks of {size}",
        shape=(size,),
        classes=len(tokenizer),
        batch_size=dataset.batch_size,
        train=train,
        validation=validation,
        test=test,
        calibration=Blocks(train.tensors[0][:rows]),
    )


def shown_name(config: Config) -> str:
    """Return what the network is called, without the folder it was read from."""
    name = config.model.name
    return Path(name).name if Path(name).exists() else name


def _source(config: Config) -> str:
    name = config.model.name
    try:
        return str(packaged_model(name)) if name in packaged_names() else name
    except InvalidValueError as error:
        raise config.error(("model", "name"), str(error)) from error


def loading_options(config: Config) -> dict[str, Any]:
    """Return `model.options`; ConfigError where a file asks for remote code."""
    key = "trust_remote_code"
    path = ("model", "options", key)
    if config.model.options.get(key) and not config.is_overridden(path):
        raise config.error(
            path, f"a file cannot ask for it; expected --set model.options.{key}=true"
        )
    return dict(config.model.options)


def tokenizer_of(config: Config) -> Any:
    """Return the tokenizer that comes with the model; ConfigError when there is none."""
    try:
        tokenizer = load_tokenizer(_source(config), **loading_options(config))
    except (NodeLensError, TypeError) as error:
        raise config.error(("model", "name"), str(error)) from error
    if tokenizer is None:
        raise config.error(("model", "name"), f"{config.model.name!r} comes without a tokenizer")
    return tokenizer


def _parts(config: Config, tokenizer: Any, size: int) -> list[Tensor]:
    """Return the blocks of training, validation and test; a hub's data set has splits of its own.

    Of its test split, no more is read than the evaluation looks at.
    """
    dataset = config.dataset
    count = None if dataset.tokens is None else dataset.tokens // size
    name = dataset.name
    if name in text_names() or not is_hub_name(name):
        blocks = token_blocks(_documents(config), tokenizer, size, count)["input_ids"]
        return list(blocks.split(_lengths(config, len(blocks))))
    asked = config.evaluation.tokens if config.evaluation is not None else None
    wanted = None if asked is None else -(-asked // size)
    blocks, test = (
        token_blocks(_split(config, split), tokenizer, size, most)["input_ids"]
        for split, most in (("train", count), ("test", wanted))
    )
    held = max(1, round(dataset.validation_fraction * len(blocks)))
    if held >= len(blocks):
        raise TooFewRowsError(f"{len(blocks)} training blocks, expected two or more")
    return [blocks[:-held], blocks[-held:], test]


def _split(config: Config, split: str) -> Iterator[Document]:
    """Yield the documents of a split of a Hugging Face data set, under the name it has there."""
    options = dict(config.dataset.options)
    names = {part: str(options.pop(part, part)) for part in ("train", "test")}
    try:
        yield from hub_texts(config.dataset.name, names[split], **options)
    except TypeError as error:
        raise config.error(("dataset", "options"), str(error)) from error
    except (NodeLensError, OSError) as error:
        raise config.error(("dataset", "name"), str(error)) from error


def _documents(config: Config) -> list[Document]:
    name = config.dataset.name
    file = Path(name).expanduser()
    try:
        if name not in text_names() and file.is_file():
            return [Document(file.name, file.read_text("utf-8"))]
        return load_text(name)
    except UnknownNameError as error:
        known = ", ".join(text_names())
        raise config.error(
            ("dataset", "name"),
            f"no text {name!r}{nearest(name, text_names())}; expected {known} or a text file",
        ) from error
    except (NodeLensError, OSError, ValueError) as error:
        raise config.error(("dataset", "name"), f"{name!r} cannot be read: {error}") from error


def _lengths(config: Config, total: int) -> list[int]:
    """Return how many blocks each part gets; held-out parts get one at least."""
    dataset = config.dataset
    fractions = (dataset.validation_fraction, dataset.test_fraction)
    held = [max(1, round(fraction * total)) for fraction in fractions]
    if sum(held) >= total:
        raise config.error(
            ("dataset", "tokens"), f"{total} blocks, expected at least three, one for each part"
        )
    return [total - sum(held), *held]
