"""The tables of the pruning pages say what the files beside them hold."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(text: str) -> dict[str, list[str]]:
    """The cells of every row of a Markdown table behind the first, by the first."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in rows[1:]}


@pytest.mark.parametrize("network", ["digits", "mnist"])
def test_accuracy_curves(network: str):
    text = (DOCS / "pruning-curves.md").read_text("utf-8")
    part = next(p for p in text.split("\n## ") if f"pruning-curves-{network}.csv" in p)
    found = pd.read_csv(DOCS / "data" / f"pruning-curves-{network}.csv")
    found = found[found["amount"] > 0]
    areas = found.groupby("score")["accuracy"].mean()
    means = found.groupby(["score", "amount"])["accuracy"].mean().unstack()
    told = table(part)
    assert told.keys() == set(areas.index)
    for name, (area, *cells, _) in told.items():
        assert area == f"{areas[name]:.3f}", name
        assert [cell.split(" ")[0] for cell in cells] == [f"{v:.1%}" for v in means.loc[name]], name
    assert found[found["score"] == "random"]["seed"].nunique() == 5
    above = int((areas > areas["magnitude"]).sum())
    assert f"magnitude {areas['magnitude']:.3f}.\nAbove magnitude: {above} of" in part


def test_perplexities():
    text = (DOCS / "smollm2-pruning.md").read_text("utf-8")
    found = pd.read_csv(DOCS / "data" / "smollm2-pruning.csv")
    means = found.groupby(["label", "amount"])["perplexity"].mean().unstack()
    told = table(text)
    assert told.keys() == set(means.index)
    for name, (*cells, _) in told.items():
        numbers = [float(cell.split(" ")[0].replace(",", "")) for cell in cells]
        assert numbers == pytest.approx(list(means.loc[name]), rel=3e-3), name
    assert found[found["label"] == "random"]["seed"].nunique() == 3


@pytest.mark.parametrize("page", ["pruning-curves.md", "smollm2-pruning.md", "shrinking.md"])
def test_the_commands_are_there(page: str):
    commands = re.findall(r"python -m\s+([\w.]+)", (DOCS / page).read_text("utf-8"))
    assert commands and all(find_spec(f"{name}.__main__") for name in commands)
