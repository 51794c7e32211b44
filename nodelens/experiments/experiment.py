"""Running the stages of an experiment, and taking up a run where it stopped."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch

from nodelens.configs import Config
from nodelens.configs.config_loader import dump_config
from nodelens.data import Share
from nodelens.errors import (
    ConfigError,
    InvalidValueError,
    MergeError,
    UnknownNameError,
    nearest,
)
from nodelens.experiments.artifacts import CONFIG, RunResults
from nodelens.experiments.console import Display
from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.experiments.networks import build_network
from nodelens.experiments.perform import closing, logged, perform
from nodelens.experiments.provenance import environment, package_code, source_code
from nodelens.experiments.record import Record, key_of
from nodelens.experiments.shards import adopt, read_shards, shard_directory
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.tracked import check_tracking, tracked
from nodelens.statistics.distributed import joined

__all__ = ["Experiment"]

_SMALL = 1_000_000
"""Parameters below which a network is small."""


class Experiment(ABC):
    """A list of stages over one configuration; subclasses say which."""

    type: ClassVar[str]

    def __init__(self, config: Config) -> None:
        if config.experiment_type != self.type:
            raise ConfigError(
                f"{type(self).__name__} runs {self.type!r} configurations,"
                f" not {config.experiment_type!r}"
            )
        self.config = config

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Return the stages in the order they run."""

    def run(
        self,
        *,
        resume: bool = False,
        progress: bool = True,
        shard: str | Share | None = None,
        only: str | None = None,
    ) -> RunResults:
        """Return the results, once every stage is done.

        With `resume`, stages that finished before with the same settings and code are kept, and
        measuring goes on behind the batches that were saved. Without it everything is done again,
        except that an unchanged network is not trained twice. An interrupt (Ctrl-C) leaves finished
        files whole and says so in `provenance.json`. Under `torchrun` all ranks measure, and rank 0
        does the rest. With `shard`, `i/n`, that share alone is measured, in a directory of its own,
        for `merge`.

        With `only`, that stage alone is done again; what it needs must have finished in the folder
        with the same settings and code, else InvalidValueError, and nothing is changed.
        """
        share = Share.parse(shard) if isinstance(shard, str) else shard
        folder = RunFolder(shard_directory(self.config.output.directory, share))
        with joined() as ranks:
            if share is not None and ranks.count > 1:
                raise InvalidValueError(
                    f"shard {share} on {ranks.count} ranks: expected shards, or ranks, not both"
                )
            run = Run(self.config, folder, ranks=ranks, resume=resume, shard=share, only=only)
            return self._finish(run, progress)

    def merge(
        self, directories: Sequence[str | Path], *, resume: bool = False, progress: bool = True
    ) -> RunResults:
        """Return the results of a whole run whose shards are in `directories`, in any order.

        The network is taken from the first shard, the statistics from all; the stages after
        measuring run here. Raises MergeError unless every shard of one run is there once.
        """
        shards = read_shards(directories)
        folder = RunFolder(self.config.output.directory)
        return self._finish(Run(self.config, folder, resume=resume, shards=shards), progress)

    def _finish(self, run: Run, progress: bool) -> RunResults:
        _check_list(self.stages())
        _known(run.only, self._stages(run))
        run.device  # noqa: B018 - a device that is not there is told before any work
        check_tracking(self.config)
        for stage in self.stages():
            stage.check(run)
        with _threads(run):
            if run.ranks.index == 0:
                self._lead(run, progress)
            else:
                self._assist(run)
        run.ranks.wait()
        for stage in self._stages(run) if run.ranks.index else ():
            stage.tidy(run)
        return RunResults(run.folder.root)

    def _lead(self, run: Run, progress: bool) -> None:
        stages = self._stages(run)
        if run.only is not None:
            self._check_needed(run, stages)
        run.folder.prepare()
        with logged(run) as log:
            self._run_stages(run, stages, Display(progress), log)

    def _check_needed(self, run: Run, stages: Sequence[Stage]) -> None:
        """Raise InvalidValueError unless all that `run.only` needs has finished as it would now."""
        keys: dict[str, str] = {}
        record = Record(run.folder, {}) if run.folder.has(PROVENANCE) else None
        needed = _needed(str(run.only), stages)
        for stage in stages:
            key = keys[stage.name] = self._key(stage, run, keys)
            if stage.name in needed and not (record and record.is_done(stage.name, key)):
                raise InvalidValueError(
                    f"stage {run.only!r} needs {stage.name!r}, which has not finished in"
                    f" {str(run.folder.root)!r} with these settings and this code; expected a run"
                    " with --resume first"
                )

    def _assist(self, run: Run) -> None:
        """Do another rank's part: of the stages that rank 0 does not keep, its share."""
        for stage in self._stages(run):
            if stage.shared and not run.ranks.from_first(lambda: False):
                stage.assist(run)

    def _stages(self, run: Run) -> Sequence[Stage]:
        """Return the stages of this run: a shard ends with what all ranks could share."""
        stages = list(self.stages())
        if run.shard is None:
            return stages
        if not (shared := _up_to_shared(stages)):
            raise InvalidValueError(
                f"shard {run.shard} of {type(self).__name__}: none of its stages can be shared out;"
                " expected a run without it"
            )
        return shared

    def _run_stages(
        self, run: Run, stages: Sequence[Stage], display: Display, log: logging.Logger
    ) -> None:
        record = self._open_record(run, stages)
        with tracked(run, record, log) as follow, closing(record, log):
            taken = [stage.name for stage in _up_to_shared(stages)[:-1] if run.shards]
            if run.shards:
                adopt(run.shards[0], record, taken)
            keys: dict[str, str] = {}
            for stage in stages:
                key = keys[stage.name] = self._key(stage, run, keys)
                if run.only not in (None, stage.name):
                    if stage.shared:
                        run.ranks.from_first(lambda: True)
                    follow(stage.name)
                    continue
                done = record.is_done(stage.name, key)
                if stage.name in taken and not done:
                    raise MergeError(
                        f"{run.shards[0]}: the files of its stage {stage.name!r}, or nodelens's"
                        " code, changed since; expected them as they were"
                    )
                keep = done and not run.only
                keep = keep and (run.resume or stage.reusable or stage.name in taken)
                if stage.shared:
                    run.ranks.from_first(lambda keep=keep: keep)  # type: ignore[misc]
                perform(stage, run, record, key, display, log, keep=keep)
                follow(stage.name)

    def _open_record(self, run: Run, stages: Sequence[Stage]) -> Record:
        experiment = self.config.experiment
        facts = {
            "experiment": experiment.name,
            "type": experiment.type,
            "class": f"{type(self).__module__}:{type(self).__qualname__}",
            "seed": experiment.seed,
            "environment": environment(run.device),
            "data": {"rows": run.splits.rows, "fingerprint": run.splits.fingerprint},
            "shard": None if run.shard is None else str(run.shard),
            "processes": len(run.shards) or run.ranks.count,
        }
        record = Record(run.folder, facts)
        record.keep([stage.name for stage in stages])
        record.data["protocol"] = {stage.name: stage.protocol(self.config) for stage in stages}
        record.save()
        run.folder.write_text(CONFIG, dump_config(self.config))
        return record

    @staticmethod
    def _key(stage: Stage, run: Run, keys: dict[str, str]) -> str:
        names = list(keys) if stage.collects else stage.needs
        needed = [keys[name] for name in names if name in keys]
        code = source_code(*stage.code)
        if not type(stage).__module__.startswith("nodelens."):
            code += package_code([type(stage)])
        return key_of(stage.name, stage.settings(run), code, needed)


def _up_to_shared(stages: Sequence[Stage]) -> Sequence[Stage]:
    """Return the stages up to the last that ranks can share, none where there is no such stage."""
    ends = [number for number, stage in enumerate(stages, start=1) if stage.shared]
    return stages[: max(ends, default=0)]


def _check_list(stages: Sequence[Stage]) -> None:
    """Raise InvalidValueError for a list that is empty, or has a name twice or a need too late."""
    names = [stage.name for stage in stages]
    if not names:
        raise InvalidValueError("the experiment has no stages, expected one or more")
    for place, stage in enumerate(stages):
        if stage.name in names[:place]:
            raise InvalidValueError(
                f"two stages are called {stage.name!r}, expected a name of its own for each"
            )
        if late := [name for name in stage.needs if name in names[place:]]:
            raise InvalidValueError(
                f"stage {stage.name!r} needs {late[0]!r}, which does not come before it"
            )


def _known(only: str | None, stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    if only is not None and only not in names:
        raise UnknownNameError(
            f"no stage {only!r}{nearest(only, names)}; this run has {', '.join(names)}"
        )


def _needed(name: str, stages: Sequence[Stage]) -> set[str]:
    """Return the stages that `name` needs, and those that they need."""
    names = [stage.name for stage in stages]
    direct = {s.name: tuple(names[:n]) if s.collects else s.needs for n, s in enumerate(stages)}
    found: set[str] = set()
    waiting = [*direct[name]]
    while waiting:
        other = waiting.pop()
        if other in direct and other not in found:
            found.add(other)
            waiting += direct[other]
    return found


@contextmanager
def _threads(run: Run) -> Iterator[None]:
    """Use one thread for a small network on the CPU, and as many as before afterwards.

    On its small tensors two threads gain next to nothing on an idle machine and are ten times
    slower on a busy one; and one thread adds up in the same order on every machine.
    """
    before = torch.get_num_threads()
    if run.device.type == "cpu" and _is_small(run):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_small(run: Run) -> bool:
    if run.config.is_language_model:
        return False
    parameters = build_network(run.config, run.splits).parameters()
    return sum(p.numel() for p in parameters) < _SMALL
