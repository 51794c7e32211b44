"""Running the stages of an experiment, and taking up a run where it stopped."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch

from nodelens.configs import Config
from nodelens.configs.config_loader import dump_config
from nodelens.errors import ConfigError, NodeLensError
from nodelens.experiments.artifacts import CONFIG, LOG, RunResults
from nodelens.experiments.console import Display
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.networks import build_network
from nodelens.experiments.provenance import environment, source_code
from nodelens.experiments.record import Record, key_of
from nodelens.experiments.stage import Run, Stage

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

    def run(self, *, resume: bool = False, progress: bool = True) -> RunResults:
        """Return the results, once every stage is done.

        With `resume`, stages that finished before with the same settings and code are kept. Without
        it everything is done again, except that an unchanged network is not trained twice. An
        interrupt (Ctrl-C) leaves finished files whole and says so in `provenance.json`.
        """
        folder = RunFolder(self.config.output.directory)
        run = Run(self.config, folder)
        stages = self.stages()
        for stage in stages:
            stage.check(run)
        folder.prepare()
        display = Display(progress)
        with _threads(run), _logging(run) as log:
            self._run_stages(run, stages, display, log, resume=resume)
        return RunResults(folder.root)

    def _run_stages(
        self,
        run: Run,
        stages: Sequence[Stage],
        display: Display,
        log: logging.Logger,
        *,
        resume: bool,
    ) -> None:
        record = self._open_record(run, stages)
        with _closing(record, log):
            keys: dict[str, str] = {}
            for stage in stages:
                keys[stage.name] = self._key(stage, run, keys)
                keep = (resume or stage.reusable) and record.is_done(stage.name, keys[stage.name])
                self._one(stage, run, record, keys[stage.name], display, log, keep=keep)

    def _open_record(self, run: Run, stages: Sequence[Stage]) -> Record:
        experiment = self.config.experiment
        facts = {
            "experiment": experiment.name,
            "type": experiment.type,
            "seed": experiment.seed,
            "environment": environment(run.device),
            "data": {"rows": run.splits.rows, "fingerprint": run.splits.fingerprint},
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
        log.info("%s: finished in %.1f s (%s)", stage.name, seconds, summary)
        display.done(stage.name, summary, seconds)


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
