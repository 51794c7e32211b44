"""Running the stages of an experiment, and taking up a run where it stopped."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch

from nodelens.configs import Config
from nodelens.configs.config_loader import dump_config
from nodelens.data import Share
from nodelens.errors import ConfigError, InvalidValueError, MergeError, NodeLensError
from nodelens.experiments.artifacts import CONFIG, LOG, RunResults
from nodelens.experiments.console import Display
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.networks import build_network
from nodelens.experiments.provenance import environment, source_code
from nodelens.experiments.record import Record, key_of
from nodelens.experiments.shards import adopt, read_shards, shard_directory
from nodelens.experiments.stage import Run, Stage
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
        self, *, resume: bool = False, progress: bool = True, shard: str | Share | None = None
    ) -> RunResults:
        """Return the results, once every stage is done.

        With `resume`, stages that finished before with the same settings and code are kept, and
        measuring goes on behind the batches that were saved. Without it everything is done again,
        except that an unchanged network is not trained twice. An interrupt (Ctrl-C) leaves finished
        files whole and says so in `provenance.json`. Under `torchrun` all ranks measure, and rank 0
        does the rest. With `shard`, `i/n`, that share alone is measured, in a directory of its own,
        for `merge`.
        """
        share = Share.parse(shard) if isinstance(shard, str) else shard
        folder = RunFolder(shard_directory(self.config.output.directory, share))
        with joined() as ranks:
            if share is not None and ranks.count > 1:
                raise InvalidValueError(
                    f"shard {share} on {ranks.count} ranks: expected shards, or ranks, not both"
                )
            run = Run(self.config, folder, ranks=ranks, resume=resume, shard=share)
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
        run.folder.prepare()
        with _logging(run) as log:
            self._run_stages(run, self._stages(run), Display(progress), log)

    def _assist(self, run: Run) -> None:
        """Do another rank's part: of the stages that rank 0 does not keep, its share."""
        for stage in self._stages(run):
            if stage.shared and not run.ranks.from_first(lambda: False):
                stage.assist(run)

    def _stages(self, run: Run) -> Sequence[Stage]:
        """Return the stages of this run: a shard ends with what all ranks could share."""
        stages = list(self.stages())
        return stages if run.shard is None else stages[: _last_shared(stages) + 1]

    def _run_stages(
        self, run: Run, stages: Sequence[Stage], display: Display, log: logging.Logger
    ) -> None:
        record = self._open_record(run, stages)
        with _closing(record, log):
            taken = [stage.name for stage in stages[: _last_shared(stages)] if run.shards]
            if run.shards:
                adopt(run.shards[0], record, taken)
            keys: dict[str, str] = {}
            for stage in stages:
                key = keys[stage.name] = self._key(stage, run, keys)
                done = record.is_done(stage.name, key)
                if stage.name in taken and not done:
                    raise MergeError(
                        f"{run.shards[0]}: the files of its stage {stage.name!r}, or nodelens's"
                        " code, changed since; expected them as they were"
                    )
                keep = done and (run.resume or stage.reusable or stage.name in taken)
                if stage.shared:
                    run.ranks.from_first(lambda keep=keep: keep)  # type: ignore[misc]
                self._one(stage, run, record, key, display, log, keep=keep)

    def _open_record(self, run: Run, stages: Sequence[Stage]) -> Record:
        experiment = self.config.experiment
        facts = {
            "experiment": experiment.name,
            "type": experiment.type,
            "seed": experiment.seed,
            "environment": environment(run.device),
            "data": {"rows": run.splits.rows, "fingerprint": run.splits.fingerprint},
            "shard": None if run.shard is None else str(run.shard),
            "processes": len(run.shards) or run.ranks.count,
        }
        record = Record(run.folder, facts)
        record.keep([stage.name for stage in stages])
        record.data["protocol"] = {stage.name: stage.protocol(self.config) for stage in stages}
        run.folder.write_text(CONFIG, dump_config(self.config))
        record.save()
        return record

    @staticmethod
    def _key(stage: Stage, run: Run, keys: dict[str, str]) -> str:
        needed = [keys[name] for name in stage.needs if name in keys]
        return key_of(stage.name, stage.settings(run), source_code(*stage.code), needed)

    @staticmethod
    def _one(
        stage: Stage,
        run: Run,
        record: Record,
        key: str,
        display: Display,
        log: logging.Logger,
        *,
        keep: bool,
    ) -> None:
        if keep:
            summary = record.data["stages"][stage.name]["summary"]
            log.info("%s: kept (%s)", stage.name, summary)
            display.done(stage.name, summary, None)
            return
        log.info("%s: started", stage.name)
        record.begin(stage.name, key)
        started = time.perf_counter()
        with display.bar(stage.name) as run.advance:
            summary = stage.run(run)
        seconds = time.perf_counter() - started
        record.end(stage.name, seconds, summary)
        stage.tidy(run)
        log.info("%s: finished in %.1f s (%s)", stage.name, seconds, summary)
        display.done(stage.name, summary, seconds)


def _last_shared(stages: Sequence[Stage]) -> int:
    return max(number for number, stage in enumerate(stages) if stage.shared)


@contextmanager
def _threads(run: Run) -> Iterator[None]:
    """Use one thread for a small network on the CPU, and as many as before afterwards.

    On its small tensors two threads gain next to nothing on an idle machine and are ten times
    slower on a busy one; and one thread adds up in the same order on every machine.
    """
    before = torch.get_num_threads()
    parameters = sum(p.numel() for p in build_network(run.config, run.splits).parameters())
    if run.device.type == "cpu" and parameters < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _closing(record: Record, log: logging.Logger) -> Iterator[None]:
    """Note in the record how the run ended, however it did."""
    status = "failed"
    try:
        yield
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except NodeLensError as error:
        log.error("%s", error)
        raise
    finally:
        record.close(status)
        log.info("run %s", status)


@contextmanager
def _logging(run: Run) -> Iterator[logging.Logger]:
    log = logging.getLogger("nodelens.experiments")
    handler = logging.FileHandler(run.folder.path(LOG), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
