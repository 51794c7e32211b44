"""Halos and flow in the report: which are stronger than chance, and what they are like."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nodelens import figures
from nodelens.analysis.clustering import TYPES
from nodelens.experiments.artifacts import FLOW, HALO_CHANNELS, HALOS, RunResults
from nodelens.experiments.chapters.clusters import listed, number, p_text, unstructured
from nodelens.experiments.stage import Drawing
from nodelens.report import Chapter, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chapter", "drawings"]

_LEVEL = 0.05


def drawings(results: RunResults) -> list[Drawing]:
    """Return the flow between types, and the strongest halo, of every two layers."""
    halos, flow = results.table(HALOS), results.table(FLOW)
    channels = results.table(HALO_CHANNELS)
    if halos is None or flow is None or channels is None:
        return []
    found = []
    for (source, target), rows in flow.groupby(["source", "target"], sort=False):
        alt = f"Influence from each type of `{source}` by type of `{target}`."
        found.append(Drawing(f"flow_{source}_{target}", alt, partial(_draw_flow, rows)))
        mine = halos[(halos["source"] == source) & (halos["target"] == target)]
        best = _highest(mine, mine["z"])
        alt = f"The halo of the {best['type']} channels of `{source}` in `{target}`{_p(best)}."
        draw = partial(_draw_halo, channels, best)
        found.append(Drawing(f"halo_{source}_{target}", alt, draw))
    return found


def _highest(table: pd.DataFrame, values: pd.Series[float]) -> Any:
    """The row of the highest value, the first of several."""
    return table.iloc[int(values.to_numpy().argmax())]


def _p(row: Any) -> str:
    return f": {p_text(row['p_adjusted'])}"


def _draw_flow(rows: pd.DataFrame) -> Axes:
    wide = rows.pivot_table(index="source_type", columns="target_type", values="share")
    kinds = list(reversed(TYPES))
    wide = wide.reindex(
        index=[kind for kind in kinds if kind in wide.index],
        columns=[kind for kind in kinds if kind in wide.columns],
    )
    return figures.plot_cluster_flow(wide.to_numpy(), list(wide.index), list(wide.columns))


def _draw_halo(channels: pd.DataFrame, row: Any) -> Axes:
    mine = channels[
        (channels["source"] == row["source"])
        & (channels["target"] == row["target"])
        & (channels["type"] == row["type"])
    ]
    inside = mine.loc[mine["in_halo"].astype(bool), "channel"]
    return figures.plot_halo(
        mine["share"].to_numpy(),
        inside.to_numpy(),
        expected=float(row["share_random"]),
        source=f"{row['type']} channels",
    )


def chapter(results: RunResults) -> Chapter | None:
    """Return what is told of halos and flow."""
    halos, flow = results.table(HALOS), results.table(FLOW)
    if halos is None or flow is None:
        return None
    said = [_strongest(halos), _like(halos), _flow(flow), _caution(results)]
    return Chapter(
        name="halos",
        title="Who listens to them",
        headline=_headline(halos),
        sentences=[sentence for sentence in said if sentence],
        how=(
            "A halo always exists: it is the top of the next layer by the share of its input that"
            " comes from a type. Read its p-value, and how far its share is above that of as many"
            " sources drawn at random. Rows of a flow sum to 1; a large type expects a large share."
        ),
        tables={"The halos": _halos(halos), "The flow between types": _flows(flow)},
    )


def _headline(halos: pd.DataFrame) -> str:
    strong = int((halos["p_adjusted"] <= _LEVEL).sum())
    if not strong:
        return f"None of {len(halos)} halos is stronger than those of sources drawn at random"
    are = "is" if strong == 1 else "are"
    return f"{strong} of {len(halos)} halos {are} stronger than those of sources drawn at random"


def _strongest(halos: pd.DataFrame) -> str:
    best = _highest(halos, halos["z"])
    return (
        f"The strongest is that of the {best['type']} channels of `{best['source']}` in"
        f" `{best['target']}`: its channels take {best['share']:.0%} of their input from them,"
        f" {best['share_random']:.0%} from as many at random (adjusted"
        f" {p_text(best['p_adjusted'])})."
    )


def _like(halos: pd.DataFrame) -> str:
    counts = [int((halos[f"{name}_p"] <= _LEVEL).sum()) for name in ("redundancy", "synergy")]
    return (
        f"{counts[0]} of {len(halos)} differ in redundancy from halos of random sources, and"
        f" {counts[1]} in synergy, at 5% each: by chance alone about {0.05 * len(halos):.1f} would."
    )


def _flow(flow: pd.DataFrame) -> str:
    found = flow[flow["p_adjusted"] <= _LEVEL]
    if found.empty:
        return f"No type speaks to another more or less than to its size: {len(flow)} flows tested."
    best = _highest(found, (found["share"] - found["share_random"]).abs())
    return (
        f"{len(found)} of {len(flow)} flows differ from what sizes alone would give, most that from"
        f" {best['source_type']} channels of `{best['source']}` to {best['target_type']} ones of"
        f" `{best['target']}` ({best['share']:.0%}, expected {best['share_random']:.0%})."
    )


def _caution(results: RunResults) -> str:
    none = unstructured(results)
    if not none:
        return ""
    return f"Types of {listed(none)} are cut from a cloud without structure."


def _halos(halos: pd.DataFrame) -> Table:
    columns = {
        "sources": "sources",
        "channels": "in halo",
        "share": "share",
        "share_random": "share, random",
        "z": "z",
        "p_adjusted": "p, adjusted",
        "redundancy": "redundancy",
        "redundancy_others": "others",
        "synergy": "synergy",
        "synergy_others": "others ",
    }
    rows = [
        [f"{row['type']} of {row['source']} in {row['target']}", *(_shown(row[k]) for k in columns)]
        for _, row in halos.iterrows()
    ]
    return Table(["halo", *columns.values()], rows)


def _flows(flow: pd.DataFrame) -> Table:
    columns = ("share", "share_random", "per_unit", "z", "p_adjusted")
    rows = [
        [
            f"{row['source_type']} of {row['source']} to {row['target_type']} of {row['target']}",
            *(number(row[key]) for key in columns),
        ]
        for _, row in flow.iterrows()
    ]
    return Table(["flow", "share", "expected", "per channel", "z", "p, adjusted"], rows)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, int) else number(value)
