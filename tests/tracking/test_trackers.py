"""A run tells its trackers everything once, and outlives every one of them."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from nodelens.configs.config_loader import parse_config
from nodelens.errors import ConfigError, TrackingWarning, UnknownNameError, UnknownOptionError
from nodelens.experiments import Run
from nodelens.experiments import tracked as followed
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.tracked import check_tracking, numbers_of
from nodelens.statistics.distributed import Ranks
from nodelens.tracking import Trackers, check_tracker, make_tracker, registry, tracker_names
from nodelens.tracking.mlflow import _ALLOWED, _files_allowed
from nodelens.tracking.wandb import WandbTracker

CALLS = ("start", "log", "log_file", "finish")


class Listening:
    """A tracker that keeps what it is told; it fails at one of its calls."""

    def __init__(self, fails_at: str = "", failure: BaseException | None = None) -> None:
        self.fails_at = fails_at
        self.failure = failure or RuntimeError("no route to host")
        self.told: list[tuple] = []

    def _hear(self, what: str, *arguments: object) -> None:
        self.told.append((what, *arguments))
        if what == self.fails_at:
            raise self.failure

    def start(self, name, config, folder):
        self._hear("start", name, config, folder)

    def log(self, values, step):
        self._hear("log", values, step)

    def log_file(self, path, name):
        self._hear("log_file", name)

    def finish(self, status):
        self._hear("finish", status)


def through(trackers: Trackers, folder: Path) -> None:
    trackers.start("first", {"seed": 0}, folder)
    trackers.log({"a": 1.0}, 0)
    trackers.log({"a": 2.0, "b": float("nan")}, 1)
    trackers.log({"b": float("inf")}, 2)
    trackers.log_file(folder / "x", "x")
    trackers.finish("finished")


def told(folder: Path) -> list[tuple]:
    return [
        ("start", "first", {"seed": 0}, folder / "one"),
        ("log", {"a": 1.0}, 0),
        ("log", {"a": 2.0}, 1),
        ("log_file", "x"),
        ("finish", "finished"),
    ]


def test_a_tracker_is_told_all_that_is_finite_in_a_folder_of_its_own(tmp_path):
    one = Listening()
    through(Trackers({"one": lambda: one}), tmp_path)
    assert one.told == told(tmp_path) and (tmp_path / "one").is_dir()


@pytest.mark.parametrize("failure", [RuntimeError("gone"), SystemExit(1)], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_one_that_fails_is_warned_of_once_and_the_others_hear_all(call, failure, tmp_path):
    broken, one = Listening(call, failure), Listening()
    noted: list[str] = []
    with pytest.warns(TrackingWarning, match=f"tracker 'broken' failed at '{call}'") as caught:
        through(Trackers({"broken": lambda: broken, "one": lambda: one}, noted.append), tmp_path)
    assert len(caught) == len(noted) == 1 and noted[0] == str(caught[0].message)
    assert [what for what, *_ in broken.told].count(call) == 1 and broken.told[-1][0] == call
    assert one.told == told(tmp_path)


def test_one_that_cannot_even_be_made_is_left_out(tmp_path):
    one = Listening()
    with pytest.warns(TrackingWarning, match="'broken' failed at 'start'.*ZeroDivisionError"):
        through(Trackers({"broken": lambda: 1 // 0, "one": lambda: one}), tmp_path)
    assert one.told == told(tmp_path)


def test_a_warning_that_is_an_error_stops_nothing_either(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        through(Trackers({"broken": lambda: Listening("log")}), tmp_path)


def test_an_interrupt_is_no_failure_of_a_tracker(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        through(Trackers({"one": lambda: Listening("log", KeyboardInterrupt())}), tmp_path)


def test_names_and_options_are_checked_before_a_run(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"'tensorbord' \(did you mean 'tensorboard'\?\)"):
        check_tracker("tensorbord", {})
    with pytest.raises(UnknownOptionError, match=r"'projet' \(did you mean 'project'\?\); it has"):
        check_tracker("wandb", {"projet": "x"})


def test_the_tracker_of_a_package_is_found_by_name(monkeypatch):
    points = [EntryPoint("acme", "collections:Counter", registry.GROUP)]
    points += [EntryPoint("broken", "no.such.module:X", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert tracker_names() == ["acme", "broken", "mlflow", "tensorboard", "wandb"]
    check_tracker("broken", {"anything": 1})
    assert make_tracker("acme", {"red": 2})["red"] == 2
    with pytest.raises(ModuleNotFoundError):
        make_tracker("broken", {})


CONFIG = """\
experiment: {name: first}
model: {name: mlp}
dataset: {name: digits}
lenses: [weight_magnitude]
output: {directory: out}
"""


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{trackers: [tensorbord]}", "first.yaml, line 6: tracking.trackers.0: unknown tracker"),
        ("{trackers: [mlflow, {name: wandb, projet: x}]}", "trackers.1: tracker 'wandb' has"),
        ("{trackers: [wandb, wandb]}", "wandb is named twice, expected each tracker once"),
        ("{trackers: wandb}", "'wandb', expected a list"),
        ("{tracker: [wandb]}", "unknown key .*did you mean 'trackers'"),
        ("{trackers: [wandb], files: [../x]}", "'../x', expected a pattern inside the run direct"),
        ("{trackers: [wandb], files: [/etc/x]}", "expected a pattern inside the run directory"),
    ],
)
def test_mistakes_in_the_section_are_told_with_their_place(section, said):
    with pytest.raises(ConfigError, match=said):
        check_tracking(parse_config(f"{CONFIG}tracking: {section}\n", source="first.yaml"))


def test_without_the_section_there_is_nothing_to_check():
    assert parse_config(CONFIG).tracking.trackers == ()
    check_tracking(parse_config(CONFIG))


def test_numbers_of_a_run_are_those_of_its_tables(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("results/network.json", {"name": "mlp", "test_accuracy": 0.5})
    assert list(numbers_of(folder, "results/network.json")) == [({"network/test_accuracy": 0.5}, 0)]
    folder.write_text("results/training.csv", "epoch,loss\n1,0.5\n2,0.25\n")
    assert list(numbers_of(folder, "results/training.csv")) == [
        ({"training/loss": 0.5}, 1),
        ({"training/loss": 0.25}, 2),
    ]
    folder.write_text("analysis/layer_means.csv", "score,fc1,fc2\nrq,1,2\nsize,3,4\n")
    assert list(numbers_of(folder, "analysis/layer_means.csv")) == [
        ({"layers/rq": 1.0, "layers/size": 3.0}, 0),
        ({"layers/rq": 2.0, "layers/size": 4.0}, 1),
    ]
    folder.write_text(
        "results/sensitivity.csv",
        "split,score,mode,seed,amount,accuracy\n"
        "validation,rq,low,,0.5,0.1\n"
        "test,rq,low,,0.5,0.9\n"
        "test,random,random,0,0.5,0.2\n"
        "test,random,random,1,0.5,0.4\n",
    )
    ((values, step),) = numbers_of(folder, "results/sensitivity.csv")
    assert step == 50 and values == {
        "silenced/rq/low": pytest.approx(0.9),
        "silenced/random/random": pytest.approx(0.3),
    }
    assert list(numbers_of(folder, "report.html")) == []


@contextmanager
def following(monkeypatch, folder, rank=0):
    """Follow a run by a tracker that listens."""
    heard = Listening()
    monkeypatch.setattr(followed, "make_tracker", lambda name, options: heard)
    section = "tracking: {trackers: [{name: wandb, options: {entity: secret}}]}"
    run = Run(parse_config(f"{CONFIG}{section}\n"), RunFolder(folder), ranks=Ranks(index=rank))
    with followed.tracked(run, SimpleNamespace(data={"stages": {}}), logging.getLogger("x")):
        yield heard


def test_a_tracker_hears_the_configuration_but_for_tracking_and_how_it_ended(monkeypatch, tmp_path):
    with following(monkeypatch, tmp_path) as heard:
        pass
    what, name, config, folder = heard.told[0]
    assert (what, name, folder) == ("start", "first", tmp_path / "tracking/wandb")
    assert "model" in config and "tracking" not in config
    assert heard.told[-1] == ("finish", "finished")
    for raised, status in ((KeyboardInterrupt, "interrupted"), (ValueError, "failed")):
        with pytest.raises(raised), following(monkeypatch, tmp_path) as heard:
            raise raised
        assert heard.told[-1] == ("finish", status)


def test_one_process_of_a_run_tracks(monkeypatch, tmp_path):
    with following(monkeypatch, tmp_path, rank=1) as heard:
        pass
    assert heard.told == []


def test_wandb_has_a_step_for_each_part():
    rows: list[dict] = []
    tracker = WandbTracker()
    tracker._run = SimpleNamespace(define_metric=lambda *_, **__: None, log=rows.append)
    tracker.log({"training/loss": 0.5}, 3)
    assert rows == [{"training/loss": 0.5, "training/step": 3}]


def test_the_variable_of_mlflow_is_set_for_a_moment(monkeypatch):
    for before in (None, "false"):
        if before is None:
            monkeypatch.delenv(_ALLOWED, raising=False)
        else:
            monkeypatch.setenv(_ALLOWED, before)
        with _files_allowed():
            assert os.environ[_ALLOWED] == (before or "true")
        assert os.environ.get(_ALLOWED) == before


def test_numbers_of_later_stages_are_those_of_their_tables(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "results").mkdir()
    write = {
        "pruning.csv": "strategy,mode,seed,amount,tuned,split,accuracy\n"
        "mag,low,,0.5,False,test,0.75\nmag,low,,0.5,True,test,0.8\n"
        "mag,low,,0.5,False,validation,0.1\n"
        "random,random,0,0.5,False,test,0.2\nrandom,random,1,0.5,False,test,0.4\n",
        "cluster_layers.csv": "layer,silhouette,p_value,verdict\na,0.5,0.25,none\nb,0.25,,none\n",
        "supernodes.csv": "layer,core\na,3\n",
        "causal.csv": "check,estimate,value,source,target\nx,gap,0.5,,\nhalo,p,0.25,a,b\nx,n,,,\n",
        "evaluation.json": '{"accuracy": 0.5, "note": "text", "exact": true}',
    }
    for name, text in write.items():
        (tmp_path / "results" / name).write_text(text)
    found = {name: list(numbers_of(folder, f"results/{name}")) for name in write}
    ((pruned, step),) = found["pruning.csv"]
    assert step == 50 and pruned == pytest.approx(
        {
            "pruned/mag/low/accuracy": 0.75,
            "pruned/mag/low/tuned/accuracy": 0.8,
            "pruned/random/random/accuracy": 0.3,
        }
    )
    assert found["cluster_layers.csv"] == [
        ({"clusters/silhouette": 0.5, "clusters/p_value": 0.25}, 0),
        ({"clusters/silhouette": 0.25}, 1),
    ]
    assert found["supernodes.csv"] == [({"supernodes/core": 3.0}, 0)]
    assert found["causal.csv"] == [({"causal/x/gap": 0.5, "causal/halo/a/b/p": 0.25}, 0)]
    assert found["evaluation.json"][0][0]["evaluation/accuracy"] == 0.5
