"""The three adapters against the real software: what it reads back is what it was told."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from nodelens.configs.config_loader import parse_config
from nodelens.errors import TrackingWarning
from nodelens.experiments import GeneralAlignmentExperiment, RunResults
from nodelens.tracking import Trackers, make_tracker

pytestmark = [
    pytest.mark.slow,
    # What these packages warn of is theirs.
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error::nodelens.errors.TrackingWarning"),
]

RUN = """\
experiment: {name: tracked}
model: {name: mlp, options: {hidden: [4]}}
dataset: {name: digits}
training: {epochs: 2}
lenses: [weight_magnitude]
sensitivity: {scores: [weight_magnitude], amounts: [0.5], random_seeds: [0]}
"""


def needs(module: str, package: str) -> None:
    reason = f"{package} is not installed: pip install -c constraints.txt -e '.[tracking]'"
    pytest.importorskip(module, reason=reason)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from matplotlib.image import imsave

    (tmp_path / "figures").mkdir()
    imsave(tmp_path / "figures/a.png", np.full((6, 5), 0.25), cmap="gray", vmin=0, vmax=1)
    return tmp_path / "figures/a.png"


def through(name: str, folder: Path, picture: Path, status: str, **options: object) -> Path:
    """Log a short run with one tracker and return the folder of that tracker."""
    trackers = Trackers({name: lambda: make_tracker(name, options)})
    trackers.start("first", {"model": {"name": "mlp"}, "lenses": ["rq"]}, folder)
    for epoch, loss in [(1, 0.5), (2, 0.25)]:
        trackers.log({"training/loss": loss}, epoch)
    trackers.log({"layers/rq": 3.0}, 0)
    trackers.log_file(picture, "figures/a.png")
    trackers.finish(status)  # type: ignore[arg-type]
    return folder / name


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    read.Reload()
    return read


def test_tensorboard_reads_back_scalars_figure_and_configuration(tmp_path, picture):
    needs("tensorboard", "tensorboard")
    for _ in range(2):  # a second start takes the place of the first
        folder = through("tensorboard", tmp_path, picture, "finished")
    read = events(folder)
    assert [(e.step, e.value) for e in read.Scalars("training/loss")] == [(1, 0.5), (2, 0.25)]
    assert [(e.step, e.value) for e in read.Scalars("layers/rq")] == [(0, 3.0)]
    (image,) = read.Images("figures/a.png")
    assert (image.width, image.height) == (5, 6)
    text = read.Tensors("experiment_config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"name": "mlp"' in text
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("status", "theirs"), [("finished", "FINISHED"), ("interrupted", "KILLED")]
)
def test_mlflow_reads_back_metrics_parameters_and_artifacts(
    status, theirs, tmp_path, picture, monkeypatch
):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    needs("mlflow", "mlflow-skinny")
    folder = through("mlflow", tmp_path, picture, status)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient((folder / "mlruns").as_uri())
    number = client.get_experiment_by_name("nodelens").experiment_id
    (run,) = client.search_runs([number])
    assert (run.info.run_name, run.info.status) == ("first", theirs)
    assert run.data.params == {"model.name": "mlp", "lenses": "['rq']"}
    found = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(m.step, m.value) for m in found] == [(1, 0.5), (2, 0.25)]
    (artifact,) = client.list_artifacts(run.info.run_id, "figures")
    kept = client.download_artifacts(run.info.run_id, artifact.path)
    assert Path(kept).read_bytes() == picture.read_bytes()


def test_wandb_keeps_an_offline_run_whole(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    needs("wandb", "wandb")
    folder = through("wandb", tmp_path, picture, "finished", project="ours")
    (run,) = folder.glob("wandb/offline-run-*")
    kept = run / "files/figures/a.png"
    assert kept.read_bytes() == picture.read_bytes() and not kept.is_symlink()
    records = list(logged_by_wandb(next(run.glob("*.wandb"))))
    steps = [told_in(r.history.item) for r in records if r.HasField("history")]
    assert steps == [
        {"training/loss": 0.5, "training/step": 1},
        {"training/loss": 0.25, "training/step": 2},
        {"layers/rq": 3.0, "layers/step": 0},
    ]
    (about,) = [r.run for r in records if r.HasField("run")]
    assert (about.display_name, about.project) == ("first", "ours")
    assert told_in(about.config.update)["model"] == {"name": "mlp"}
    (end,) = [r.exit.exit_code for r in records if r.HasField("exit")]
    assert end == 0


def told_in(items) -> dict[str, object]:
    """What a record says, without W&B's own entries."""
    named = {item.key or "/".join(item.nested_key): item.value_json for item in items}
    return {key: json.loads(value) for key, value in named.items() if not key.startswith("_")}


def logged_by_wandb(file: Path):
    """Yield the records of an offline run: LevelDB's log format behind 7 bytes, 32 KiB a block."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_a_run_is_tracked_and_outlives_a_tracker_that_fails(tmp_path):
    needs("tensorboard", "tensorboard")
    text = f"{RUN}tracking: {{trackers: [{{name: mlflow, uri: 'no-such://x'}}, tensorboard]}}\n"
    config = parse_config(text, [("output.directory", str(tmp_path / "run"))])
    with pytest.warns(TrackingWarning, match="tracker 'mlflow' failed at 'start'"):
        GeneralAlignmentExperiment(config).run(progress=False)
    results = RunResults(tmp_path / "run")
    assert results.provenance["status"] == "finished"
    log = (tmp_path / "run/logs/run.log").read_text()
    assert log.count("tracker 'mlflow' failed") == 1
    read = events(tmp_path / "run/tracking/tensorboard")
    accuracy = read.Scalars("network/test_accuracy")[0].value
    assert accuracy == pytest.approx(results.network["test_accuracy"])
    assert [e.step for e in read.Scalars("training/loss")] == [1, 2]
    assert [e.step for e in read.Scalars("silenced/weight_magnitude/low")] == [0, 50]
    assert read.Images("figures/" + next((tmp_path / "run/figures").glob("*.png")).name)
    assert results.report.exists()
