"""Runs that are killed at moments drawn at random end in the folder they would have left."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from pathlib import Path

import pytest
import yaml

from nodelens.configs.config_loader import dump_config
from nodelens.experiments import RunResults
from tests.experiments.tiny_language_model import write_language_model

sys.path.insert(0, str(Path(__file__).parent))
import test_cluster
import test_supernodes
from processes import start

pytestmark = pytest.mark.slow

PRUNING = {"strategies": ["magnitude", "wanda"], "amounts": [0.25, 0.5], "random_seeds": [3, 4]}
SEED = 7
TIMES = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|<td class="n">[\d.]+</td>')


def clusters(folder: Path) -> str:
    """A cluster analysis with pruning, fine-tuning and a network that is cut out."""
    told = yaml.safe_load(test_cluster.TINY)
    told["causal"]["draws"] = 20
    told["pruning"] = {**PRUNING, "shrink": True, "fine_tuning": {"epochs": 1}}
    return yaml.safe_dump(told)


def supernodes(folder: Path) -> str:
    """A language model with supernodes and their second pass, and pruning."""
    model = write_language_model(folder)
    config = test_supernodes.configure(model, folder / "run", f"pruning={PRUNING}")
    return dump_config(config)


def resumed(config: Path, folder: Path):
    return start("-m", "nodelens", "run", config, "--output-dir", folder, "--resume")


def finish(config: Path, folder: Path) -> None:
    process = resumed(config, folder)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors


def stages_of(folder: Path) -> dict[str, dict[str, object]]:
    results = RunResults(folder)
    return results.provenance["stages"] if results.folder.has("provenance.json") else {}


def killed_in(stage: str, config: Path, folder: Path, seconds: float) -> bool:
    """Go on with a run and kill it `seconds` after the stage began; whether it was under way."""
    process = resumed(config, folder)
    while process.poll() is None and stages_of(folder).get(stage, {}).get("status") != "running":
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=20)
    return stages_of(folder).get(stage, {}).get("status") == "running"


def contents(folder: Path) -> dict[str, object]:
    """Every file but the log and the record of the runs, which tell when things were done.

    Left out of the others: the folder's own path, when the run began, seconds of a stage or pass.
    """
    found: dict[str, object] = dict(test_cluster.contents(folder))
    for name in ("experiment_config.yaml", "report.html", "report.md", "report.json"):
        text = (folder / name).read_text("utf-8").replace(str(folder), "FOLDER")
        found[name] = TIMES.sub("", text).splitlines()
    if cut := found.get("shrunk/report.json"):
        found["shrunk/report.json"] = {**json.loads(cut), "seconds": "apart"}
    return found


@pytest.mark.parametrize(
    ("family", "stages"),
    [
        (clusters, ["network", "clustering", "halos", "causal", "pruning", "report"]),
        (supernodes, ["measure", "supernodes", "pruning", "figures"]),
    ],
)
def test_kills_at_random_moments_leave_the_same_folder(family, stages, tmp_path):
    config, straight, killed = tmp_path / "tiny.yaml", tmp_path / "straight", tmp_path / "killed"
    config.write_text(family(tmp_path))
    finish(config, straight)
    draw, took = random.Random(SEED), stages_of(straight)
    moments = {name: draw.random() * float(took[name]["seconds"]) for name in stages}
    hit = [name for name in stages if killed_in(name, config, killed, moments[name])]
    finish(config, killed)
    print(f"seed {SEED}: killed {moments} seconds into each stage; under way: {hit}")
    # A stage may be over before it is killed, but hardly many.
    assert len(hit) >= len(stages) // 2, (moments, took)
    assert contents(killed) == contents(straight)
