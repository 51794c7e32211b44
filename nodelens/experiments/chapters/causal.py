"""Causal checks in the report: what a type costs above chance, and whether scores foretold it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nodelens.experiments.artifacts import CASCADE, CAUSAL, RunResults
from nodelens.experiments.chapters.clusters import listed, p_text, unstructured
from nodelens.experiments.stage import Drawing
from nodelens.figures.intervals import plot_intervals
from nodelens.figures.style import paper_axes
from nodelens.report import Chapter, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chapter", "drawings"]

_HALO = ("gap", "interaction_gap")


def drawings(results: RunResults) -> list[Drawing]:
    """Return what types cost above their controls, and halos above theirs."""
    causal = results.table(CAUSAL)
    if causal is None:
        return []
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


def chapter(results: RunResults) -> Chapter | None:
    """Return what is told of the causal checks."""
    causal, cascade = results.table(CAUSAL), results.table(CASCADE)
    if causal is None or cascade is None:
        return None
    said = [_types(causal), *_halos(causal), _receivers(causal), _scores(causal), _caution(results)]
    return Chapter(
        name="causal",
        title="What they are worth",
        headline=_headline(causal),
        sentences=[sentence for sentence in said if sentence],
        how=(
            "The rise in the mean loss, in nats, of validation rows. A point right of 0 costs more"
            " than as many random channels of the same layers; an interval that holds 0 says that"
            " the draws do not tell."
        ),
        tables={"What types cost": _costs(causal), "The other checks": _others(causal)},
    )


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


def _costs(causal: pd.DataFrame) -> Table:
    mine = causal[causal["check"] == "matched_cascade"]
    named = mine["estimate"].str.split(".", expand=True).set_axis(["what", "type", "n"], axis=1)
    mine = mine.assign(**named).dropna(subset=["n"])
    rows = []
    for (kind, n), part in mine.groupby(["type", "n"], sort=False):
        found = {row.what: row for row in part.itertuples()}
        cells = [_shown(found[what]) for what in ("loss_change", "control", "excess")]
        rows.append([f"{kind}, {n}", *cells])
    return Table(["channels", "rise in loss", "of random ones", "excess"], rows)


def _others(causal: pd.DataFrame) -> Table:
    mine = causal[causal["check"] != "matched_cascade"]
    rows = [[_name(row), str(row["estimate"]), _bounds(row)] for _, row in mine.iterrows()]
    return Table(["check", "estimate", "value, 95% interval"], rows)


def _name(row: pd.Series) -> str:
    about = [str(row[k]) for k in ("score", "source", "target") if k in row and not pd.isna(row[k])]
    return f"{row['check']}: {', '.join(about)}"


def _bounds(row: pd.Series) -> str:
    if row["low"] == row["high"]:
        return f"{row['value']:.3g}".replace("-", "\N{MINUS SIGN}")
    return _shown(row)
