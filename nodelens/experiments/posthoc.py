"""What is done with a run directory afterwards: its tables, figures and report made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nodelens.configs import Config
from nodelens.configs.config_loader import dump_config, load_config
from nodelens.errors import MissingPackageError, OutputError
from nodelens.experiments.artifacts import CONFIG, SCORE_FILES, RunResults
from nodelens.experiments.console import Display
from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.experiments.perform import closing, draw_again, logged, perform
from nodelens.experiments.provenance import git_state
from nodelens.experiments.record import Record
from nodelens.experiments.registry import experiment_for, started_by
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.measure import write_tables

__all__ = ["analyse", "opened", "rebuild_report", "saved_config"]

_ORIGIN = "analysis_of"
_TAKEN = ("results/", "analysis/", "figures/")
"""Where the files lie that an analysis takes over from a run; weights stay where they are."""


def saved_config(directory: str | Path) -> Config:
    """Return the configuration of the run in `directory`, which is where it would go on.

    Raises OutputError for a folder that is no run, or is an analysis of another.
    """
    folder = opened(directory)
    if origin := folder.read_json(PROVENANCE).get(_ORIGIN):
        raise OutputError(
            f"{str(directory)!r} is an analysis of the run {origin['experiment']!r}, not a run that"
            " can go on; expected the directory of that run"
        )
    return _config(folder)


def analyse(directory: str | Path, output_dir: str | Path, *, progress: bool = False) -> RunResults:
    """Return the results in `output_dir`: tables, figures and report from a run's saved scores.

    Nothing is trained or measured, and the run in `directory` stays as it is.

    Raises OutputError when measuring has not finished there, or `output_dir` holds anything but an
    earlier analysis.
    """
    source, target = opened(directory), RunFolder(output_dir)
    told = source.read_json(PROVENANCE)
    _check_measured(source, told)
    _check_apart(source, target)
    target.prepare()
    derived = {stage.name for stage in _derived(_config(source))}
    stages = {name: entry for name, entry in told["stages"].items() if name not in derived}
    origin = {
        "experiment": told["experiment"],
        "scores": source.digest(SCORE_FILES[0]),
        "git": git_state(),
    }
    record = Record(target, {**_facts(told), _ORIGIN: origin})
    _copy(source, target, record, stages)
    write_tables(target, RunResults(target.root).scores)
    record.data["protocol"] = dict(told["protocol"])
    config = _config(target)
    return _made_again(config, target, record, progress)


def rebuild_report(directory: str | Path, *, progress: bool = False) -> RunResults:
    """Return the results of a run whose figures and report were made again from its tables.

    Raises OutputError when the tables are not there.
    """
    folder = opened(directory)
    told = folder.read_json(PROVENANCE)
    _check_measured(folder, told)
    record = Record(folder, {**_facts(told), **{k: told[k] for k in (_ORIGIN,) if k in told}})
    record.data["protocol"] = dict(told["protocol"])
    config = _config(folder)
    return _made_again(config, folder, record, progress)


def _made_again(config: Config, folder: RunFolder, record: Record, progress: bool) -> RunResults:
    run, display = Run(config, folder), Display(progress)
    with logged(run) as log, closing(record, log):
        for stage in _showing(config, record):
            draw_again(stage, run, record, log)
        for stage in _derived(config):
            record.data["protocol"][stage.name] = stage.protocol(config)
            # Without a key: a run that goes on here makes these files once more.
            perform(stage, run, record, "", display, log)
    return RunResults(folder.root)


def _derived(config: Config) -> list[Stage]:
    return [stage for stage in experiment_for(config).stages() if stage.derived]


def _showing(config: Config, record: Record) -> list[Stage]:
    """Return the stages that finished, whose parts of the report can be drawn again."""
    try:
        experiment = started_by(record.data.get("class"), config)
    except MissingPackageError:
        experiment = experiment_for(config)  # what stages of its own drew is shown as it lies
    done = {n for n, entry in record.data["stages"].items() if entry["status"] == "finished"}
    return [stage for stage in experiment.stages() if stage.name in done and not stage.derived]


def opened(directory: str | Path) -> RunFolder:
    """Return the folder of a run; OutputError when `directory` is none."""
    folder = RunFolder(directory)
    missing = [name for name in (CONFIG, PROVENANCE) if not folder.has(name)]
    if missing:
        raise OutputError(
            f"{str(directory)!r} is not the directory of a run: it has no {missing[0]!r}"
        )
    return folder


def _config(folder: RunFolder) -> Config:
    return load_config(folder.path(CONFIG), [("output.directory", str(folder.root))])


def _facts(told: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in told.items()
        if key not in ("format", "status", "finished", "protocol", "stages", _ORIGIN)
    }


def _check_measured(folder: RunFolder, told: dict[str, Any]) -> None:
    measured = told.get("stages", {}).get("measure", {})
    missing = [name for name in SCORE_FILES if not folder.has(name)]
    if measured.get("status") != "finished" or missing:
        raise OutputError(
            f"{str(folder.root)!r} has no scores: its stage 'measure' has not finished; expected"
            f" `nodelens resume {folder.root}` first"
        )


def _check_apart(source: RunFolder, target: RunFolder) -> None:
    if source.root.resolve() == target.root.resolve():
        raise OutputError(f"{str(target.root)!r} is the run itself; expected another folder")
    if target.has(PROVENANCE) and _ORIGIN not in target.read_json(PROVENANCE):
        raise OutputError(
            f"{str(target.root)!r} holds a run; expected a new folder or an earlier analysis"
        )


def _copy(
    source: RunFolder, target: RunFolder, record: Record, stages: dict[str, dict[str, Any]]
) -> None:
    """Take over what `stages` wrote, on record without a key: nothing can go on from them."""
    for name, entry in stages.items():
        shown = entry.get("shown", ())
        files = [
            file
            for file in entry["files"]
            if file.startswith(_TAKEN) and (file not in shown or source.has(file))
        ]
        for file in files:
            target.write_bytes(file, source.path(file).read_bytes())
        record.data["stages"][name] = {
            **entry,
            "key": "",
            "files": {file: target.digest(file) for file in files},
            "shown": [file for file in shown if file in files],
            "style": entry.get("style") if set(shown) <= set(files) else None,
        }
    config = _config(source).model_dump(mode="json")
    config["output"]["directory"] = str(target.root)
    target.write_text(CONFIG, dump_config(Config.model_validate(config)))
