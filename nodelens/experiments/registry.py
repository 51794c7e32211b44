"""The experiment that a configuration asks for, or that a run directory was started by."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nodelens.configs import Config
from nodelens.data import Share
from nodelens.errors import MissingPackageError
from nodelens.experiments.cluster import ClusterAnalysisExperiment
from nodelens.experiments.experiment import Experiment
from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.experiments.general import GeneralAlignmentExperiment
from nodelens.experiments.llm import LLMAlignmentExperiment
from nodelens.experiments.shards import shard_directory

__all__ = ["begun_by", "experiment_for", "started_by"]

_EXPERIMENTS: dict[str, type[Experiment]] = {
    experiment.type: experiment
    for experiment in (
        GeneralAlignmentExperiment,
        ClusterAnalysisExperiment,
        LLMAlignmentExperiment,
    )
}


def experiment_for(config: Config) -> Experiment:
    """Return the experiment of the configuration's `experiment.type`, ready to run."""
    return _EXPERIMENTS[config.experiment_type](config)


def started_by(path: str | None, config: Config) -> Experiment:
    """Return the experiment of the class at `path`, as `provenance.json` has it; ours by family.

    Raises MissingPackageError for a class of somebody else's that cannot be imported here.
    """
    if path is None or path.startswith("nodelens."):
        return experiment_for(config)
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    # A stranger's module may fail in any way.
    except Exception as failure:
        raise _missing(path, failure) from failure
    if not (isinstance(found, type) and issubclass(found, Experiment)):
        raise _missing(path, TypeError(f"it is no Experiment, but {found!r:.80}"))
    return found(config)


def begun_by(config: Config, shard: str | None = None) -> str | None:
    """Return the class that began the run in the configuration's folder, None where none did."""
    share = None if shard is None else Share.parse(shard)
    folder = RunFolder(shard_directory(config.output.directory, share))
    return folder.read_json(PROVENANCE).get("class") if folder.has(PROVENANCE) else None


def _missing(path: str, failure: Exception) -> MissingPackageError:
    module, _, name = path.partition(":")
    expected = f"package {module.partition('.')[0]!r} installed, or on PYTHONPATH"
    if module == "__main__" or "<locals>" in name:
        last = name.rpartition(".")[2]
        expected = f"{last}(config).run(resume=True) in the script or notebook that defines it"
    return MissingPackageError(
        f"this run was started by the experiment {path!r}, which cannot be imported:"
        f" {type(failure).__name__}: {failure}; expected {expected}"
    )
