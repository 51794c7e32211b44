"""Dividing the data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from nodelens.configs import Config
from nodelens.data.datasets import dataset_names
from nodelens.data.hub import is_hub_name
from nodelens.experiments.artifacts import DATASET
from nodelens.experiments.stage import Run, Stage

__all__ = ["DataStage"]


class DataStage(Stage):
    """Writes how the data set was divided and a digest of its rows."""

    name = "data"
    code: ClassVar[tuple[str, ...]] = ("data", "experiments/splits.py")
    rows_are: ClassVar[str] = "rows"

    def check(self, run: Run) -> None:
        run.splits  # noqa: B018 - loading it raises what is wrong with the section

    def settings(self, run: Run) -> Any:
        return {
            "seed": run.config.experiment.seed,
            "dataset": run.config.dataset.model_dump(mode="json"),
            "calibration": run.config.calibration.model_dump(mode="json"),
            "fingerprint": run.splits.fingerprint,
        }

    def protocol(self, config: Config) -> str:
        dataset = config.dataset
        own = (
            " A test split of its own is taken as it is, and then the rest is divided."
            if dataset.name not in dataset_names() and is_hub_name(dataset.name)
            else ""
        )
        return (
            f"{Path(dataset.name).name} divided with seed {config.experiment.seed}, classes"
            f" balanced where each has several rows: {dataset.test_fraction:.0%} test,"
            f" {dataset.validation_fraction:.0%} validation, the rest training. No sample is in two"
            f" parts.{own}"
        )

    def run(self, run: Run) -> str:
        splits = run.splits
        about = {
            "name": splits.name,
            "note": splits.note,
            "shape": list(splits.shape),
            "classes": splits.classes,
            "rows": splits.rows,
            "rows_are": self.rows_are,
            "guessing_accuracy": splits.majority,
            "fingerprint": splits.fingerprint,
        }
        run.folder.write_json(DATASET, about)
        logging.getLogger("nodelens.experiments").info("data: %s", splits.note)
        rows = splits.rows
        return (
            f"{splits.name}: {rows['train']:,} training, {rows['validation']:,} validation,"
            f" {rows['test']:,} test {self.rows_are}"
        )
