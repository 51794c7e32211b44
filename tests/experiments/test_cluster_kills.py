"""A cluster analysis that is killed again and again ends in the folder it would have left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from nodelens.experiments import RunResults

sys.path.insert(0, str(Path(__file__).parent))
from processes import start
from test_cluster import TINY, contents

MOMENTS = (
    "checkpoints/trained.safetensors",
    "results/scores/result.json",
    "results/cluster_layers.csv",
    "checkpoints/causal-*.jsonl",
    "results/causal.csv",
    "figures/layer_heatmap.svg",
)


def begun(config: Path, folder: Path):
    return start("-m", "nodelens", "run", config, "--output-dir", folder, "--resume")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY.replace("draws: 2", "draws: 40"))
    return path


@pytest.mark.slow
def test_kills_at_every_stage_leave_the_same_folder(config, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = begun(config, straight)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    cut = []
    for moment in MOMENTS:
        process = begun(config, killed)
        while not list(killed.glob(moment)) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=20)
        cut.append(process.returncode)
    assert cut.count(-9) >= len(MOMENTS) - 1, cut
    process = begun(config, killed)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(killed) == contents(straight)
    results = RunResults(straight)
    assert len(list((straight / "figures").glob("*.png"))) == len(
        list((straight / "figures").glob("*.svg"))
    )
    assert "data:image/svg+xml" in results.report.read_text()
