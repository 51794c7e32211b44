"""A run that was stopped goes on to the result it would have had, or says why it will not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from nodelens import Aggregator
from nodelens.cli import app
from nodelens.errors import InvalidValueError, MergeError, OutputError
from nodelens.experiments import GeneralAlignmentExperiment, Terminated
from nodelens.experiments.provenance import package_code
from nodelens.experiments.stages import measure
from nodelens.stream import Stream

sys.path.insert(0, str(Path(__file__).parent))
from processes import script, start

SMALL = ("dataset.batch_size=100", ("sensitivity", None), "output.save_every=1")
STATE = "checkpoints/measure-1-of-1.safetensors"


class Short(GeneralAlignmentExperiment):
    """Only what comes up to the scores."""

    def stages(self):
        return list(super().stages())[:3]


def stop_at(monkeypatch, batch: int, error: BaseException) -> list[int]:
    """Stop measuring in this batch; the list gets the number of batches looked at."""
    looked, one = [0], Stream._one

    def stopping(self, given):
        if looked[0] == batch:
            raise error
        looked[0] += 1
        return one(self, given)

    monkeypatch.setattr(Stream, "_one", stopping)
    return looked


def stopped(config, monkeypatch, batch: int, error: BaseException, **options) -> None:
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        stop_at(patch, batch, error)
        Short(config).run(progress=False, **options)


def files(folder: Path) -> dict[str, bytes]:
    names = ["results/scores/scores.safetensors", "results/scores.csv", "results/channels.csv"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory) -> Path:
    """A run that nothing stopped, of eleven batches."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    Short(tiny(folder, *SMALL)).run(progress=False)
    return folder


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (1, KeyboardInterrupt()),
        (4, Terminated()),
        (10, OSError("planted")),
        pytest.param(1, OSError("planted"), marks=pytest.mark.slow),
        pytest.param(4, KeyboardInterrupt(), marks=pytest.mark.slow),
        pytest.param(10, Terminated(), marks=pytest.mark.slow),
    ],
)
def test_measuring_goes_on_to_the_identical_scores(
    straight, tiny, tmp_path, monkeypatch, error, batch
):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, batch, error)
    assert Aggregator.load(tmp_path / "run" / STATE).batches == batch
    looked = stop_at(monkeypatch, -1, error)
    Short(config).run(progress=False, resume=True)
    assert looked == [11 - batch]
    assert files(tmp_path / "run") == files(straight)
    assert not list((tmp_path / "run/checkpoints").glob("*measure*"))


def test_a_shard_goes_on_as_well(tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    whole = Short(config).run(progress=False, shard="2/2").directory / "results/state.safetensors"
    before = whole.read_bytes()
    shutil.rmtree(whole.parents[1])
    stopped(config, monkeypatch, 3, KeyboardInterrupt(), shard="2/2")
    Short(config).run(progress=False, shard="2/2", resume=True)
    assert whole.read_bytes() == before


def test_without_resume_measuring_starts_anew(straight, tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    looked = stop_at(monkeypatch, -1, KeyboardInterrupt())
    Short(config).run(progress=False)
    assert looked == [11]
    assert files(tmp_path / "run") == files(straight)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("calibration.rows=900", r"config\.calibration\.rows was None, is 900; data was"),
        ("dataset.batch_size=50", r"config\.dataset\.batch_size was 100, is 50"),
        ("experiment.seed=1", r"config\.experiment\.seed was 0, is 1; data was"),
        ("model.options.hidden=[6, 6]", r"config\.model\.options\.hidden was"),
        ("training.epochs=2", r"config\.training\.epochs was 1, is 2"),
        ("lenses=[weight_magnitude]", r"config\.lenses was"),
    ],
)
def test_another_run_is_refused_before_anything_is_written(
    tiny, tmp_path, monkeypatch, override, said
):
    folder = tmp_path / "run"
    stopped(tiny(folder, *SMALL), monkeypatch, 4, KeyboardInterrupt())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(MergeError, match=rf"of the unfinished run was measured with .*{said}"):
        Short(tiny(folder, *SMALL, override)).run(progress=False, resume=True)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_settings_that_decide_no_score_may_change(straight, tiny, tmp_path, monkeypatch):
    stopped(tiny(tmp_path / "run", *SMALL), monkeypatch, 4, KeyboardInterrupt())
    others = ("output.save_every=7", "experiment.name=other", "experiment.device=cpu")
    Short(tiny(tmp_path / "run", *SMALL, *others)).run(progress=False, resume=True)
    assert files(tmp_path / "run") == files(straight)


def test_other_weights_are_refused(straight, tiny, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("trained", "initial")]
    for path in paths:
        shutil.copy(straight / "checkpoints" / Path(path).name, path)
    given = dict(zip(("model.checkpoint", "model.initial_checkpoint"), paths, strict=True))
    config = tiny(tmp_path / "run", *SMALL, *given.items())
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    shutil.copy(paths[1], paths[0])
    with pytest.raises(MergeError, match=r"measured with something else: model\.weights was"):
        Short(config).run(progress=False, resume=True)


def test_another_number_of_processes_is_refused(tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    state = tmp_path / "run" / STATE
    aggregator = Aggregator.load(state)
    aggregator.about["share"] = "1/2"
    aggregator.save(state.with_name("measure-1-of-2.safetensors"))
    with pytest.raises(MergeError, match=r"is share 1/2 of an unfinished run.* shares of 1"):
        Short(config).run(progress=False, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_saves_and_says_how_to_go_on(straight, tiny, tmp_path, monkeypatch, number, code):
    # The other process knows nothing of the patch that makes sources stand still.
    monkeypatch.setattr(measure, "package_code", package_code)
    folder, config = tmp_path / "run", shutil.copy(straight / "experiment_config.yaml", tmp_path)
    planted, every = script(tmp_path, pause=0.5), "output.save_every=2"
    process = start(planted, "run", config, every, "--output-dir", folder)
    while not (folder / STATE).exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert f"Go on with: nodelens run {config} {every} --output-dir {folder} --resume" in errors
    assert json.loads((folder / "provenance.json").read_text())["status"] == "interrupted"
    assert 2 <= Aggregator.load(folder / STATE).batches < 11
    Short(tiny(folder, *SMALL)).run(progress=False, resume=True)
    assert files(folder) == files(straight)


def test_sigterm_is_as_it_was_after_a_run():
    from typer.testing import CliRunner

    before = signal.getsignal(signal.SIGTERM)
    CliRunner().invoke(app, ["run", "nowhere.yaml"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_is_told_and_the_last_state_stays(straight, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    replace, saves = os.replace, [0]

    def full(source, target):
        saves[0] += "measure" in str(target)
        if saves[0] == 4 and "measure" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"measure.*No space left on device"):
            Short(tiny(folder, *SMALL)).run(progress=False)
    assert json.loads((folder / "provenance.json").read_text())["status"] == "failed"
    assert Aggregator.load(folder / STATE).batches == 3
    assert not list(folder.rglob(".*"))
    Short(tiny(folder, *SMALL)).run(progress=False, resume=True)
    assert files(folder) == files(straight)


def test_a_folder_that_vanishes_is_told_and_not_made_anew(tiny, tmp_path, monkeypatch):
    folder, one, looked = tmp_path / "run", Stream._one, [0]

    def vanishing(self, given):
        looked[0] += 1
        if looked[0] == 4:
            shutil.move(folder, tmp_path / "elsewhere")
        return one(self, given)

    monkeypatch.setattr(Stream, "_one", vanishing)
    with pytest.raises(OutputError, match="is gone") as caught:
        Short(tiny(folder, *SMALL)).run(progress=False)
    assert "No such file or directory" in str(caught.value.__context__)
    assert not folder.exists()
    assert Aggregator.load(tmp_path / "elsewhere" / STATE).batches == 3


def test_what_a_killed_writer_left_is_removed(straight, tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    left = tmp_path / "run/checkpoints/.measure-1-of-1.safetensors.x1y2z3"
    left.write_bytes(b"half")
    Short(config).run(progress=False, resume=True)
    assert not left.exists()
    assert files(tmp_path / "run") == files(straight)


def test_a_broken_state_is_told(tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    (tmp_path / "run" / STATE).write_bytes(b"nothing")
    with pytest.raises(OutputError, match="cannot read"):
        Short(config).run(progress=False, resume=True)


def test_the_code_of_another_version_is_refused(tiny, tmp_path, monkeypatch):
    config = tiny(tmp_path / "run", *SMALL)
    stopped(config, monkeypatch, 4, KeyboardInterrupt())
    monkeypatch.setattr(measure, "source_code", lambda *names: "other")
    with pytest.raises(MergeError, match=r"code\.nodelens was '.*', is 'other'"):
        Short(config).run(progress=False, resume=True)


def test_an_interval_of_nothing_is_refused(tmp_path):
    from nodelens import Lens
    from nodelens.testing.subjects import SUBJECTS

    lens, model = Lens.from_name("activation_mean"), SUBJECTS[0].model()
    for option, value in {"save_every": 0, "save_every_seconds": -1.0}.items():
        with pytest.raises(InvalidValueError, match=rf"{option} is {value}, expected a number abo"):
            lens.run(model, [], progress=False, resume=tmp_path / "s", **{option: value})
