"""MLflow: a run in a tracking server, or in files of the run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nodelens.tracking.packages import imported
from nodelens.tracking.tracker import Status

__all__ = ["MLflowTracker", "flat"]

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
_LONGEST = 500


class MLflowTracker:
    """Logs to `uri`: by default that of MLFLOW_TRACKING_URI, else files in the run directory.

    `experiment` is the name of MLflow's experiment, which holds many runs. MLflow's own current
    run and settings, which are the process's, are left alone.
    """

    def __init__(self, uri: str | None = None, experiment: str = "nodelens") -> None:
        self._uri = uri
        self._experiment = experiment
        self._client: Any = None
        self._run = ""

    def start(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Start a run with the configuration as parameters, `model.name` and so on."""
        client = imported("mlflow", "mlflow-skinny").MlflowClient
        default = (folder / "mlruns").resolve().as_uri()
        with _files_allowed():
            self._client = client(self._uri or os.environ.get("MLFLOW_TRACKING_URI") or default)
            found = self._client.get_experiment_by_name(self._experiment)
            number = found.experiment_id if found else self._new_experiment()
            self._run = self._client.create_run(number, run_name=name).info.run_id
        for key, value in flat(config).items():
            self._client.log_param(self._run, key, value[:_LONGEST])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def log_file(self, path: Path, name: str) -> None:
        """Log an artifact."""
        folder = PurePosixPath(name).parent
        self._client.log_artifact(self._run, str(path), None if not folder.name else str(folder))

    def finish(self, status: Status) -> None:
        """End the run."""
        self._client.set_terminated(self._run, _STATUS[status])

    def _new_experiment(self) -> str:
        return str(self._client.create_experiment(self._experiment))


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings as texts by dotted name.

    >>> flat({"model": {"name": "mlp", "options": {}}, "lenses": ["rq"]})
    {'model.name': 'mlp', 'lenses': "['rq']"}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{before}{key}."))
        else:
            found[f"{before}{key}"] = str(value)
    return found


@contextmanager
def _files_allowed() -> Iterator[None]:
    """Let MLflow 3 open a file store: it asks for this variable, once, when a store is opened."""
    before = os.environ.get(_ALLOWED)
    os.environ.setdefault(_ALLOWED, "true")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_ALLOWED, None)
