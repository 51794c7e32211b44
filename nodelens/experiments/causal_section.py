"""Causal checks in the report: what a type costs above chance, and whether scores foretold it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nodelens import figures
from nodelens.experiments.artifacts import CAUSAL, VALIDATION, RunResults
from nodelens.experiments.cluster_section import listed, p_text, unstructured
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run
from nodelens.figures.intervals import plot_intervals
from nodelens.figures.style import paper_axes
from nodelens.report import SectionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["leave_causal_section"]

_HALO = ("gap", "interaction_gap")


def leave_causal_section(run: Run, stage: str) -> None:
    """Write what the report says of the causal checks."""
    results, causal = RunResults(run.folder.root), run.folder.read_table(CAUSAL)
    said = [_types(causal), *_halos(causal), _receivers(causal), _scores(causal), _caution(results)]
    leave_section(
        run,
        stage,
        [*_drawings(causal), *_damages(run)],
        title="What they are worth",
        sentence=f"{_headline(causal)}.",
        findings=tuple(filter(None, said)),
        tables=(SectionTable(file=CAUSAL, title="Every estimate, with its 95% interval"),),
        how=(
            "The rise in the mean loss, in nats, of validation rows. A point right of 0 costs more"
            " than as many random channels of the same layers; an interval that holds 0 says that"
            " the draws do not tell."
        ),
    )


def _drawings(causal: pd.DataFrame) -> list[Drawing]:
    """Return what types cost above their controls, and halos above theirs."""
    cost = causal[(causal["check"] == "matched_cascade") & _starts(causal, "excess.")]
    alt = "Rise in the loss above as many random channels of the same layers, by type and number."
    found = [Drawing("cascade", alt, partial(_draw, cost, _type_and_number, "excess loss"))]
    halos = causal[(causal["check"] == "halo_ablation") & causal["estimate"].isin(_HALO)]
    if len(halos):
        alt = "What a halo costs above its controls, alone, and in excess together with its core."
        found.append(Drawing("halo_ablation", alt, partial(_draw, halos, _halo, "excess loss")))
    scores = causal[(causal["check"] == "ablation_validation") & (causal["estimate"] == "spearman")]
    if len(scores):
        alt = "Rank correlation of each score with what silencing single channels costs."
        draw = partial(_draw, scores, lambda row: str(row.score), "Spearman's correlation")
        found.append(Drawing("ablation_validation", alt, draw))
    return found


def _damages(run: Run) -> list[Drawing]:
    """Return what single channels cost against their scores, a figure a score."""
    if not run.folder.has(VALIDATION):
        return []
    units, found = RunResults(run.folder.root).scores.units, []
    for name, rows in run.folder.read_table(VALIDATION).groupby("score", sort=False):
        table = rows.drop(columns="score").rename(columns={"value": "score"})
        unit = units.get(str(name), "")
        draw = partial(figures.plot_damage, table, name=str(name), unit=unit)
        alt = f"What silencing a channel alone costs, against its {name}."
        found.append(Drawing(f"damage_{name}", alt, draw))
    return found


def _starts(causal: pd.DataFrame, name: str) -> pd.Series:
    return causal["estimate"].str.startswith(name)


def _draw(rows: pd.DataFrame, name: Any, label: str) -> Axes:
    values = rows[["value", "low", "high"]].astype(float).itertuples(index=False, name=None)
    points = {name(row): one for row, one in zip(rows.itertuples(), values, strict=True)}
    ax = paper_axes(None, 3.5, 0.8 + 0.17 * len(points))
    return plot_intervals(points, ax, label=f"{label}, with its 95% interval")


def _type_and_number(row: Any) -> str:
    _, kind, *count = row.estimate.split(".")
    return f"{kind}, {count[0]}" if count else f"{kind}, all numbers"


def _halo(row: Any) -> str:
    words = {"gap": "alone", "interaction_gap": "with its core"}
    return f"{row.target}, {words[row.estimate]}"


def _overall(causal: pd.DataFrame) -> pd.DataFrame:
    """The excess of each type over all numbers of channels."""
    mine = causal[(causal["check"] == "matched_cascade") & _starts(causal, "excess.")]
    whole = mine[mine["estimate"].str.count(r"\.") == 1]
    return whole.assign(type=whole["estimate"].str.removeprefix("excess."))


def _headline(causal: pd.DataFrame) -> str:
    found = _overall(causal)
    more = list(found.loc[found["low"] > 0, "type"])
    less = list(found.loc[found["high"] < 0, "type"])
    if not more and not less:
        return "Silencing channels of a type costs no more or less than random ones of its layers"
    parts = [
        f"{' and '.join(types)} channels {verb}"
        for types, verb in ((more, "cost more"), (less, "cost less"))
        if types
    ]
    said = ", and ".join(parts)
    return f"{said[0].upper()}{said[1:]} than random ones of the same layers"


def _types(causal: pd.DataFrame) -> str:
    told = [f"{row.type} {_shown(row)}" for row in _overall(causal).itertuples()]
    return (
        "Rise in the loss above as many random channels of the same layers, in nats, mean over"
        f" numbers of channels: {', '.join(told)}."
    )


def _shown(row: Any) -> str:
    return f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]".replace("-", "\N{MINUS SIGN}")


def _halos(causal: pd.DataFrame) -> list[str]:
    mine = causal[causal["check"] == "halo_ablation"]
    said = []
    for (source, target), rows in mine.groupby(["source", "target"], sort=False):
        found: dict[str, Any] = {str(row.estimate): row for row in rows.itertuples()}
        said.append(
            f"The halo of `{source}`'s {found['gap'].type} channels in `{target}` costs"
            f" {_shown(found['gap'])} nats above matched channels ({p_text(found['p'].value)}), and"
            f" {_shown(found['interaction_gap'])} on top with its core gone"
            f" ({p_text(found['interaction_p'].value)})."
        )
    return said


def _receivers(causal: pd.DataFrame) -> str:
    mine = causal[(causal["check"] == "halo_receivers") & (causal["estimate"] == "spearman")]
    if mine.empty:
        return ""
    told = [f"{_shown(row)} in `{row.target}`" for row in mine.itertuples()]
    return (
        "Predicted influence ranks the channels that are disrupted when its source goes with"
        f" Spearman's correlation {', '.join(told)}."
    )


def _scores(causal: pd.DataFrame) -> str:
    mine = causal[(causal["check"] == "ablation_validation") & (causal["estimate"] == "spearman")]
    if mine.empty:
        return ""
    ranked = mine.sort_values("value", ascending=False)
    told = [f"`{row.score}` {_shown(row)}" for row in ranked.itertuples()]
    return f"What single channels cost goes by rank with {', '.join(told)}, mean over layers."


def _caution(results: RunResults) -> str:
    none = unstructured(results)
    if not none:
        return ""
    return f"The cascade counts in {listed(none)}, where types are cut from a cloud."
