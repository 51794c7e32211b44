"""What trackers are told of a run: read from the files of each stage once it has finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from nodelens.configs import Config
from nodelens.errors import NodeLensError
from nodelens.experiments.artifacts import (
    CAUSAL,
    CLUSTER_LAYERS,
    EVALUATION,
    LAYER_MEANS,
    NETWORK,
    PRUNING,
    SENSITIVITY,
    SUPERNODES,
    TRAINING,
)
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.record import Record
from nodelens.experiments.stage import Run
from nodelens.tracking import Status, Trackers, check_tracker, make_tracker

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_tracking", "numbers_of", "tracked"]

FOLDER = "tracking"
Numbers = Iterator[tuple[Mapping[str, float], int]]
"""Values by name, and their step."""


def check_tracking(config: Config) -> None:
    """Raise ConfigError for a tracker that nobody has, or an option that it has not."""
    for number, tracker in enumerate(config.tracking.trackers):
        try:
            check_tracker(tracker.name, tracker.options)
        except NodeLensError as error:
            raise config.error(("tracking", "trackers", number), str(error)) from error


@contextmanager
def tracked(run: Run, record: Record, log: logging.Logger) -> Iterator[Callable[[str], None]]:
    """Yield what is called with a stage's name once it is done; afterwards the trackers end.

    Without trackers, for a shard (`merge` tracks the whole) and on any rank but 0 it does
    nothing.
    """
    section = run.config.tracking
    if not section.trackers or run.shard is not None or run.ranks.index:
        yield lambda stage: None
        return
    made = {t.name: partial(make_tracker, t.name, t.options) for t in section.trackers}
    trackers = Trackers(made, log.warning)
    # Options of trackers may be addresses with passwords in them.
    told = run.config.model_dump(mode="json", exclude={"tracking"})
    trackers.start(run.config.experiment.name, told, run.folder.path(FOLDER))
    status: Status = "failed"
    try:
        yield lambda stage: _log_stage(trackers, run.folder, record, stage)
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        _log_files(trackers, run.folder, section.files)
        trackers.finish(status)


def numbers_of(folder: RunFolder, file: str) -> Numbers:
    """Yield the numbers of a file of the run with their steps; none for a file of another kind."""
    if file == NETWORK:
        yield _plain_numbers("network", folder.read_json(file)), 0
    elif file == EVALUATION:
        yield _plain_numbers("evaluation", folder.read_json(file)), 0
    elif file in _TABLES:
        yield from _TABLES[file](folder)


def _log_stage(trackers: Trackers, folder: RunFolder, record: Record, stage: str) -> None:
    entry = record.data["stages"].get(stage, {})
    if entry.get("status") != "finished" or not trackers.names:
        return
    trackers.log({f"seconds/{stage}": entry["seconds"]}, 0)
    for file in entry["files"]:
        for values, step in numbers_of(folder, file):
            trackers.log(values, step)


def _log_files(trackers: Trackers, folder: RunFolder, patterns: tuple[str, ...]) -> None:
    root = folder.root.resolve()
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    for path in sorted(found):
        trackers.log_file(path, path.relative_to(root).as_posix())


def _plain_numbers(what: str, about: Mapping[str, Any]) -> dict[str, float]:
    kept = {k: v for k, v in about.items() if isinstance(v, int | float)}
    return {f"{what}/{name}": float(value) for name, value in kept.items()}


def _training(folder: RunFolder) -> Numbers:
    """Yield loss and accuracy by epoch."""
    table = folder.read_table(TRAINING)
    for row in table.to_dict("records"):
        epoch = int(row.pop("epoch"))
        yield {f"training/{name}": float(value) for name, value in row.items()}, epoch


def _layer_means(folder: RunFolder) -> Numbers:
    """Yield the mean of every score by layer, counted from 0 in forward order."""
    table = folder.read_table(LAYER_MEANS, index="score")
    for number, layer in enumerate(table.columns):
        yield {f"layers/{score}": float(v) for score, v in table[layer].items()}, number


def _sensitivity(folder: RunFolder) -> Numbers:
    """Yield test accuracy by percent of channels silenced; random orders as their mean."""
    table = folder.read_table(SENSITIVITY)
    tested: pd.DataFrame = table[table["split"] == "test"]
    for amount, rows in tested.groupby("amount"):
        order = "silenced/" + rows["score"].astype(str) + "/" + rows["mode"].astype(str)
        means = rows["accuracy"].groupby(order).mean()
        yield {str(k): float(v) for k, v in means.items()}, round(100 * float(str(amount)))


def _pruning(folder: RunFolder) -> Numbers:
    """Yield what pruned networks do on test rows, by percent pruned; chance as its mean."""
    table = folder.read_table(PRUNING)
    tested = table[table["split"] == "test"]
    measures = [name for name in ("accuracy", "perplexity", "loss") if name in tested]
    tuned = tested["tuned"].map({True: "/tuned", False: ""})
    tested = tested.assign(order=tested["strategy"] + "/" + tested["mode"] + tuned)
    for amount, rows in tested.groupby("amount"):
        means = rows.groupby("order")[measures].mean().to_dict("index").items()
        found = {
            f"pruned/{order}/{name}": float(value)
            for order, values in means
            for name, value in values.items()
        }
        yield found, round(100 * float(str(amount)))


def _by_layer(folder: RunFolder, *, file: str, what: str) -> Numbers:
    """Yield the numbers of a table with a row a layer, counted from 0."""
    table = folder.read_table(file).select_dtypes("number")
    for number, row in enumerate(table.to_dict("records")):
        yield {f"{what}/{name}": float(v) for name, v in row.items() if v == v}, number


def _causal(folder: RunFolder) -> Numbers:
    """Yield every estimate of the causal checks."""
    rows = folder.read_table(CAUSAL).dropna(subset=["value"])
    about = [name for name in ("check", "source", "target", "score", "estimate") if name in rows]
    named = rows[about].apply(lambda row: "/".join(row.dropna().astype(str)), axis=1)
    yield {f"causal/{n}": float(v) for n, v in zip(named, rows["value"], strict=True)}, 0


_TABLES: Mapping[str, Callable[[RunFolder], Numbers]] = {
    TRAINING: _training,
    LAYER_MEANS: _layer_means,
    SENSITIVITY: _sensitivity,
    PRUNING: _pruning,
    CLUSTER_LAYERS: partial(_by_layer, file=CLUSTER_LAYERS, what="clusters"),
    SUPERNODES: partial(_by_layer, file=SUPERNODES, what="supernodes"),
    CAUSAL: _causal,
}
