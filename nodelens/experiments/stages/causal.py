"""What silencing says of types, halos and scores, on rows that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from torch.utils.data import TensorDataset

from nodelens.analysis.causal import (
    AblationValidation,
    CausalCheck,
    CausalResult,
    HaloAblation,
    MatchedCascade,
    halo_receivers,
)
from nodelens.configs import CausalConfig, Config
from nodelens.experiments.artifacts import (
    CASCADE,
    CAUSAL,
    CLUSTERS,
    HALO_ABLATION,
    HALO_CHANNELS,
    RECEIVERS,
    SCORES,
    VALIDATION,
)
from nodelens.experiments.causal_section import leave_causal_section
from nodelens.experiments.lenses import check_score
from nodelens.experiments.record import key_of
from nodelens.experiments.stage import Run, Stage
from nodelens.model import ModelWrapper
from nodelens.model.fingerprint import model_fingerprint
from nodelens.result import LensResult

__all__ = ["RECORD", "CausalStage", "looked_at", "record_path"]

RECORD = "checkpoints/causal-{}.jsonl"


@dataclass(frozen=True)
class _Task:
    """A check, the table its rows go to, what it is about, and how often it evaluates."""

    table: str
    about: Mapping[str, str]
    evaluations: int
    run: Callable[[Any], CausalResult]


class CausalStage(Stage):
    """Writes what channels of each type cost, and whether halos and scores foretold it.

    Every evaluation is saved under `checkpoints/` as soon as it is known, to go on from.
    """

    name = "causal"
    needs = ("data", "network", "measure", "clustering", "halos")
    code = (
        "data",
        "model",
        "interventions",
        "analysis/causal",
        "experiments/causal_section.py",
        "experiments/stages/causal.py",
    )

    def check(self, run: Run) -> None:
        given = _section(run.config)
        for number, score in enumerate(given.scores):
            check_score(run.config, ("causal", "scores", number), score)
        looked_at(run, given.rows, ("causal", "rows"))

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        given = _section(config)
        rows = "all" if given.rows is None else f"the first {given.rows:,}"
        return (
            f"Channels are silenced as in the stage sensitivity, on {rows} validation rows. Of each"
            f" type {given.draws} sets are drawn for each number of channels, and for each set as"
            " many channels of the same layers at random; intervals are bootstraps over the draws,"
            f" 95%. A halo stands beside {given.halo_draws} sets of channels of its layer that are"
            " not in it"
            + (
                f", near in {config.clustering.importance}."
                if config.clustering is not None and config.clustering.importance
                else "."
            )
        )

    def run(self, run: Run) -> str:
        model, given = ModelWrapper(run.network), _section(run.config).rows
        rows, path = looked_at(run, given), record_path(run, model, given)
        batches = list(run.splits.batches(rows))
        tasks = list(_tasks(run))
        total, done = sum(task.evaluations for task in tasks), 0
        tables: dict[str, list[pd.DataFrame]] = {}
        estimates: list[dict[str, Any]] = []
        for task in tasks:
            before = done
            watch = lambda n, _, before=before: run.advance(min(before + n, total), total)  # noqa: E731
            found = task.run({"model": model, "batches": batches, "path": path, "progress": watch})
            done += task.evaluations
            # `score` is what the score is called, `value` what the channel has.
            told = pd.DataFrame(list(found.rows)).rename(columns={"score": "value"})
            told = told.assign(**task.about)
            tables.setdefault(task.table, []).append(told)
            estimates += [
                {"check": found.name, **task.about, "estimate": name, **vars(estimate)}
                for name, estimate in found.estimates.items()
            ]
        for name, parts in tables.items():
            run.folder.write_table(name, pd.concat(parts, ignore_index=True))
        run.folder.write_table(CAUSAL, pd.DataFrame(estimates))
        return f"{len(tasks)} checks, {total:,} evaluations on {len(rows):,} validation rows"

    def show(self, run: Run) -> None:
        leave_causal_section(run, self.name)

    def tidy(self, run: Run) -> None:
        for left in run.folder.root.glob(RECORD.format("*")):
            left.unlink(missing_ok=True)


def looked_at(
    run: Run, rows: int | None, key: tuple[str, ...] = ("causal", "rows")
) -> TensorDataset:
    """Return the first validation rows, all for None; ConfigError, at `key`, for too few."""
    part = run.splits.validation
    if rows is not None and rows > len(part):
        raise run.config.error(key, f"{rows} rows, but the validation part has {len(part)}")
    return type(part)(*(tensor[:rows] for tensor in part.tensors))


def record_path(run: Run, model: ModelWrapper, rows: int | None) -> Path:
    """Return where evaluations are saved; those of another network, data or code are removed."""
    told = {"rows": rows, "data": run.splits.fingerprint}
    batch = run.config.dataset.batch_size
    name = RECORD.format(key_of(model_fingerprint(model.module), told, batch))
    path = run.folder.path(name)
    for left in run.folder.root.glob(RECORD.format("*")):
        if not run.resume or left.name != path.name:
            left.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    return path


def _tasks(run: Run) -> Iterator[_Task]:
    given, folder = _section(run.config), run.folder
    result = LensResult.load(folder.path(SCORES))
    clusters = folder.read_table(CLUSTERS)
    shared: dict[str, Any] = {"resamples": given.resamples, "seed": given.seed}
    cascade = MatchedCascade(_types(clusters), counts=given.counts, draws=given.draws, **shared)
    yield _of(CASCADE, {}, cascade)
    if run.config.halo is not None:
        yield from _of_halos(run, result, folder.read_table(HALO_CHANNELS), _types(clusters))
    layers = list(dict.fromkeys(clusters["layer"]))
    for score in given.scores:
        values = {name: result.scores(score)[name] for name in layers}
        check = AblationValidation(
            values, importance=result.importance[score], per_layer=given.per_layer, **shared
        )
        yield _of(VALIDATION, {"score": score}, check)


def _types(clusters: pd.DataFrame) -> dict[str, dict[str, list[int]]]:
    """Return the channels of every layer by type."""
    return {
        str(name): {str(layer): list(part["channel"]) for layer, part in rows.groupby("layer")}
        for name, rows in clusters.groupby("type")
    }


def _of(table: str, about: Mapping[str, str], check: CausalCheck) -> _Task:
    def run(options: dict[str, Any]) -> CausalResult:
        given = dict(options)
        return check.run(given.pop("model"), given.pop("batches"), **given)

    return _Task(table, about, check.evaluations, run)


def _of_halos(
    run: Run,
    result: LensResult,
    halos: pd.DataFrame,
    types: Mapping[str, Mapping[str, list[int]]],
) -> Iterator[_Task]:
    """Yield both checks of every halo that there are enough other channels to compare with."""
    given, importance = _section(run.config), _importance(run.config, result)
    chosen = halos[halos["type"] == given.halo_type]
    for (source, target), rows in chosen.groupby(["source", "target"], sort=False):
        inside = rows["in_halo"].astype(bool)
        halo, others = (list(rows.loc[which, "channel"]) for which in (inside, ~inside))
        about = {"source": str(source), "target": str(target), "type": given.halo_type}
        core = types[given.halo_type][str(source)]
        if halo and len(halo) <= len(others):
            check = HaloAblation(
                {str(target): halo},
                {str(source): core},
                {str(target): others},
                scores=importance,
                draws=given.halo_draws,
                seed=given.seed,
            )
            yield _of(HALO_ABLATION, about, check)
        rest = [c for mine in types.values() for c in mine.get(str(source), []) if c not in core]
        yield _receivers(given, about, core, rest, rows["share"].to_numpy())


def _receivers(
    given: CausalConfig, about: Mapping[str, str], core: list[int], rest: list[int], share: Any
) -> _Task:
    source, target = about["source"], about["target"]
    others = {source: rest} if len(rest) >= len(core) else None

    def run(options: dict[str, Any]) -> CausalResult:
        return halo_receivers(
            options["model"],
            options["batches"],
            {source: core},
            target,
            share,
            others=others,
            draws=given.draws,
            resamples=given.resamples,
            seed=given.seed,
            progress=options["progress"],
        )

    return _Task(RECEIVERS, about, 1 + (given.draws if others else 0), run)


def _importance(config: Config, result: LensResult) -> dict[str, Tensor] | None:
    name = config.clustering.importance if config.clustering is not None else None
    return None if name is None else result.scores(name)


def _section(config: Config) -> CausalConfig:
    assert config.causal is not None, "the stage is only made for a config with the section"
    return config.causal
