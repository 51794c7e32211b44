"""Training, validation and test rows, which share no sample, and the rows lenses read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from nodelens.configs import Config
from nodelens.data import Share
from nodelens.data.datasets import ImageDataset, load_dataset, loader, strata
from nodelens.errors import NodeLensError, UnknownOptionError
from nodelens.experiments.provenance import fingerprint

__all__ = ["Splits", "load_splits"]


@dataclass(frozen=True)
class Splits:
    """A data set in three parts: `train` to fit, `validation` to choose by, `test` to report."""

    name: str
    note: str
    shape: tuple[int, ...]
    classes: int
    batch_size: int
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    calibration: TensorDataset

    def batches(
        self, part: TensorDataset, share: Share | None = None
    ) -> DataLoader[tuple[Tensor, ...]]:
        """Return a part, or a share of it, in batches of `(inputs, classes)`, always in order."""
        return loader(part, self.batch_size, share)

    @property
    def rows(self) -> dict[str, int]:
        """Return the number of rows of every part."""
        names = ("train", "validation", "test", "calibration")
        return {name: len(getattr(self, name)) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """Return a digest of the rows and their division."""
        parts = (self.train, self.validation, self.test, self.calibration)
        return fingerprint(tensor for part in parts for tensor in part.tensors)

    @property
    def majority(self) -> float | None:
        """Return the share of the commonest class in the test part: the accuracy of guessing.

        None for text, which has no classes.
        """
        if len(self.test.tensors) < 2:
            return None
        counts = torch.bincount(self.test.tensors[1], minlength=self.classes)
        return float(counts.max()) / len(self.test)


def load_splits(config: Config) -> Splits:
    """Return the data set of a configuration, divided by its seed with classes balanced."""
    dataset = config.dataset
    try:
        seed, folder = config.experiment.seed, dataset.folder
        found = load_dataset(dataset.name, seed, dataset.test_fraction, folder, dataset.options)
    except NodeLensError as error:
        wrong = "options" if isinstance(error, UnknownOptionError) else "name"
        key = wrong if folder is None else "folder"
        raise config.error(("dataset", key), str(error)) from error
    train, validation = _hold_out(found, config)
    rows = config.calibration.rows
    if rows is not None and rows > len(train):
        raise config.error(
            ("calibration", "rows"),
            f"{rows} rows, but the training part of {dataset.name!r} has {len(train)}",
        )
    return Splits(
        name=found.name,
        note=found.note,
        shape=found.shape,
        classes=found.classes,
        batch_size=dataset.batch_size,
        train=train,
        validation=validation,
        test=found.test,
        # Rows come shuffled from the split, so the first ones are a fair sample.
        calibration=TensorDataset(*(tensor[:rows] for tensor in train.tensors)),
    )


def _hold_out(found: ImageDataset, config: Config) -> tuple[TensorDataset, TensorDataset]:
    from sklearn.model_selection import train_test_split

    total = len(found.train) + len(found.test)
    wanted = round(config.dataset.validation_fraction * total)
    try:
        kept, held = train_test_split(
            np.arange(len(found.train)),
            test_size=wanted,
            random_state=config.experiment.seed,
            stratify=strata(found.train.tensors[1]),
        )
    except ValueError as error:
        raise config.error(("dataset", "validation_fraction"), str(error)) from error
    train, validation = (
        TensorDataset(*(tensor[rows] for tensor in found.train.tensors)) for rows in (kept, held)
    )
    return train, validation
