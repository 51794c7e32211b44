"""What the report says of pruning: sentences, the table, and a figure a mode."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nodelens import figures
from nodelens.experiments.artifacts import DATASET, PRUNING, PRUNING_PROTOCOL
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run
from nodelens.report import SectionTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leave_pruning_section"]

_WORDS = {"low": "lowest scores first", "high": "highest scores first"}
_TUNED = {False: "", True: ", then fine-tuned"}


def leave_pruning_section(run: Run, stage: str) -> None:
    """Write the section of the report and its figures, from the table and what is told of it.

    No strategy is called the best: that would be a choice on test rows.
    """
    table, about = run.folder.read_table(PRUNING), run.folder.read_json(PRUNING_PROTOCOL)
    tested = table[(table["split"] == "test") & (table["mode"] != "dense")]
    cut = about.get("shrunk")
    leave_section(
        run,
        stage,
        _drawings(run, tested, about),
        title="What is left when channels are pruned",
        sentence=_sentence(tested, about),
        answers="without",
        findings=() if cut is None else (_of_the_smallest(cut, about["metric"]),),
        tables=(SectionTable(file=PRUNING, title="Every pruned network"),),
        how=about["protocol"],
    )


def _sentence(tested: pd.DataFrame, about: dict[str, Any]) -> str:
    metric, amount = about["metric"], tested["amount"].max()
    last = tested[(tested["amount"] == amount) & ~tested["tuned"]]
    ranked, drawn = (last[(last["mode"] == "random") == chance][metric] for chance in (False, True))
    ends = " to ".join(dict.fromkeys(_shown(end, metric) for end in (ranked.min(), ranked.max())))
    chance = f", {_shown(drawn.mean(), metric)} by chance (mean of {len(drawn)})" * bool(len(drawn))
    return (
        f"With {amount:.0%} of the channels pruned, {metric} is {ends} by strategy{chance};"
        f" {_shown(about['dense'][metric], metric)} with all of them."
    )


def _of_the_smallest(cut: dict[str, Any], metric: str) -> str:
    before, after = (cut["parameters"][key] for key in ("before", "after"))
    return (
        f"Cut out was what `{cut['strategy']}` leaves at {cut['amount']:.0%}"
        f"{', fine-tuned' * cut['tuned']}, which validation rows chose: {after:,.0f} of"
        f" {before:,.0f} parameters, {metric} {_shown(cut['test'][metric], metric)}."
    )


def _shown(value: float, metric: str) -> str:
    return f"{value:.1%}" if metric == "accuracy" else f"{value:.4g}"


def _drawings(run: Run, tested: pd.DataFrame, about: dict[str, Any]) -> list[Drawing]:
    metric, chance = about["metric"], run.folder.read_json(DATASET)["guessing_accuracy"]
    drawn = []
    for mode, words in _WORDS.items():
        for tuned, more in _TUNED.items():
            rows = tested[(tested["tuned"] == tuned) & tested["mode"].isin([mode, "random"])]
            if not (rows["mode"] == mode).any():
                continue
            options = {"metric": metric, "dense": about["dense"][metric], "chance": chance}
            draw = partial(figures.plot_sparsity, rows, **options)
            alt = f"Test {metric} against the share of channels pruned, {words}{more}."
            drawn.append(Drawing(f"pruning_{mode}{'_tuned' * tuned}", alt, draw))
    return drawn
