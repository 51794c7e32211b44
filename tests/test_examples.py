"""The example scripts run as they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.models
def test_the_language_model_example_shows_what_the_top_channels_hold(tmp_path):
    command = [
        sys.executable,
        "examples/smollm2_channels.py",
        "--tokens",
        "1024",
        "--text",
        "pydoc",
    ]
    done = subprocess.run(
        [*command, "--output-dir", tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    blocks = [line for line in done.stdout.splitlines() if line.startswith("model.layers.")]
    assert len(blocks) == 30
    assert "top 1% of channels: median" in done.stdout
    assert (tmp_path / "top_share.png").stat().st_size > 10_000
    assert (tmp_path / "scores.safetensors").exists()
