"""The commands of the pages on runs, as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def shell_blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def execute(command: str, folder: Path) -> str:
    """Run a command in a folder that sees the repository's configurations; return what it says."""
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    shim = f'nodelens() {{ "{sys.executable}" -m nodelens "$@"; }}\n'
    paths = [str(ROOT), str(ROOT / "lenses"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        ["bash", "-euc", shim + command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_on_comparing_runs_does_what_it_says(tmp_path):
    (block,) = shell_blocks("comparing-runs.md")
    printed = execute(block, tmp_path)
    assert "Paired tests over runs" in printed and "wilcoxon needs" in printed
    out = tmp_path / "outputs/compared"
    tests = pd.read_csv(out / "tests.csv")
    assert tests["runs"].eq(3).all() and tests["wilcoxon_p"].isna().all()
    assert tests["t_holm"].notna().any()
    assert pd.read_csv(out / "networks.csv")["runs"].tolist() == [3]
    assert (out / "networks.tex").read_text().startswith("\\begin{tabular}")
    assert (out / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_on_tracking_does_what_it_says(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: it is in .[dev]")
    (block,) = shell_blocks("tracking.md")
    (command,) = [line for line in block.splitlines() if line.startswith("nodelens run")]
    execute(command, tmp_path)
    assert list(tmp_path.glob("outputs/template/tracking/tensorboard/events.out.tfevents.*"))
