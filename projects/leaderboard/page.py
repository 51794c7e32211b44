"""The page, the tables and the figures made from what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas
from matplotlib import pyplot
from PIL import Image

from nodelens.analysis.causal import Leaderboard

__all__ = ["drawn", "written"]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "leaderboard.md"
NETWORKS = ("digits", "mnist", "efficientnet", "smollm2")
MOST = 25

HEAD = """\
# The lens leaderboard, measured

Which score foretells what silencing a channel costs? Every metric lens that fits a network, against
the measured rise in loss; how it is done and how to read it stands in
[causal checks](causal-checks.md). Made by
`python -m projects.leaderboard {names}`; threads stand with each network.

*Spearman* is the mean over layers of the rank correlation with the measured damage of single
channels, brackets are 95% bootstrap intervals over channels; *first in* is the share of resamples
in which the score is the best; *recall* is of the most damaging tenth; *curve* is the mean rise in
loss while 0 to the largest fraction of every layer goes, lowest scores first, brackets over
batches; *accuracy* the mean accuracy along the same curve; *s a batch* is the lens alone, its pass
included. A score that has no direction of its own (0) is taken as it is: a negative correlation is
then no mistake of the lens. All scores are in the CSV file named below each figure.

## Reading

- First the reliability: how far damage on one half of the batches ranks the channels as damage on
  the other half does. Where it is about zero, the order of single channels is that of these few
  rows alone. No score can foretell it, not even one that knew the true damage, and a place on that
  board says nothing of a lens: neither that it is wrong, nor that the channels do not matter.
- Then the intervals against that of *random*, the control. Two that overlap are not ranked.
- The curve asks another question, of many channels at once, and its damage is far above its noise:
  where the reliability is low, read the curve alone.
- What leads on one network need not on another; that is the reason to run it on one's own.

## Limits

- Few rows, and few channels a layer on the large networks: the sizes stand with each.
- Batches of the curve's intervals are few; those intervals are narrow by accident.
- Silencing to zero, nothing trained again. Others: [causal checks](causal-checks.md#limits).
"""

LOW = 0.15
"""Below it the damage measured says next to nothing of damage on other rows."""


def drawn(board: Leaderboard, name: str) -> Path:
    """Write the figure and the table of a board, for the page."""
    figure, ax = pyplot.subplots(figsize=(7, 7.5), layout="constrained")
    board.plot(ax, most=35)
    path = PAGE.parent / "images" / f"leaderboard-{name}.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    # A palette is as good to the eye, and half the size.
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)
    board.to_csv(PAGE.parent / "data" / f"leaderboard-{name}.csv")
    return path


def written(folder: Path) -> Path:
    """Write the page from the files in `folder` and return where it is."""
    known = [name for name in NETWORKS if (folder / f"{name}.json").exists()]
    parts = [HEAD.format(names=" ".join(known))]
    for name in known:
        about = json.loads((folder / f"{name}.json").read_text())
        table = pandas.read_csv(folder / f"{name}.csv")
        parts += [
            _facts(about),
            _figure(name, about),
            _table(table),
            _families(table),
            _curves(table),
        ]
    PAGE.write_text("\n".join(parts))
    return PAGE


def _facts(about: dict[str, Any]) -> str:
    facts = about["facts"]
    return (
        f"## {about['title']}\n\n{about['rows'].capitalize()}; "
        f"{facts['channels silenced one by one']} channels silenced one by one, "
        f"{facts['evaluations']} evaluations{_pace(about)}. "
        f"{len(about['refused'])} lenses are of other networks or give no score of single channels."
        f"{_sentence(facts.get('reliability', ''))}{_warning(facts.get('reliability', ''))}\n"
    )


def _pace(about: dict[str, Any]) -> str:
    if "threads" not in about:
        return ""
    minutes = max(1, round(about["seconds"] / 60))
    return f", up to {minutes} min in all, threads: {about['threads']}"


def _warning(reliability: str) -> str:
    found = re.search(r"correlates by (-?[\d.]+)", reliability)
    if found is None or float(found[1]) >= LOW:
        return ""
    return " **That is about zero: read the curve, not the order by Spearman.**"


def _sentence(text: str) -> str:
    return f" {text[:1].upper()}{text[1:]}." if text else ""


def _figure(name: str, about: dict[str, Any]) -> str:
    alt = f"Correlation of every score with measured damage on {about['title']}"
    csv = f"All scores: [leaderboard-{name}.csv](data/leaderboard-{name}.csv).\n"
    return f"![{alt}](images/leaderboard-{name}.png)\n\n{csv}"


def _table(table: pandas.DataFrame) -> str:
    shown = pandas.concat([table.head(MOST), table[table["family"] == "control"]]).drop_duplicates()
    lines = [
        "| | score | direction | layers | Spearman | first in | recall | curve | accuracy "
        "| s a batch |",
        "|--:|---|--:|--:|---|--:|--:|---|--:|--:|",
    ]
    for place, row in shown.iterrows():
        lens = row["lens"]
        linked = row["score"]
        if row["family"] != "control":
            linked = f"[{row['score']}](lenses/{lens}.md)"
        lines.append(
            f"| {int(str(place)) + 1} | {linked} | {row['importance']:+d} | {row['layers']} "
            f"| {_interval(row, 'spearman')} | {row['first_in']:.0%} | {row['top_recall']:.2f} "
            f"| {_interval(row, 'curve_loss')} | {_number(row['curve_accuracy'])} "
            f"| {_number(row['seconds'])} |"
        )
    return "\n".join([*lines, ""])


def _families(table: pandas.DataFrame) -> str:
    """The best score of every family."""
    best = table[table["family"] != "control"].groupby("family", sort=False).first()
    told = [f"{name} {row['spearman']:.2f} ({row['score']})" for name, row in best.iterrows()]
    return "Best of each family: " + ", ".join(told) + ".\n"


def _curves(table: pandas.DataFrame) -> str:
    """The three lowest curves, and the control's."""
    known = table.dropna(subset=["curve_loss"]).sort_values("curve_loss", kind="stable")
    control = known[known["family"] == "control"]
    best = known[known["family"] != "control"].head(3)
    if best.empty:
        return ""
    rows = [*best.iterrows(), *control.iterrows()]
    told = [f"{row['score']} {_interval(row, 'curve_loss')}" for _, row in rows]
    return "Lowest curves, and the control's: " + ", ".join(told) + ".\n"


def _interval(row: Any, name: str) -> str:
    if pandas.isna(row[name]):
        return ""
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _number(value: float) -> str:
    return "" if pandas.isna(value) else f"{value:.3f}"
