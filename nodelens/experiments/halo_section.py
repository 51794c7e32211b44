"""Halos and flow in the report: which are stronger than chance, and what they are like."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nodelens import figures
from nodelens.analysis.clustering import TYPES
from nodelens.experiments.artifacts import FLOW, HALO_CHANNELS, HALOS, RunResults
from nodelens.experiments.cluster_section import listed, p_text, unstructured
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run
from nodelens.report import SectionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["leave_halo_section"]

_LEVEL = 0.05
_PROPERTIES = ("redundancy", "synergy")


def leave_halo_section(run: Run, stage: str) -> None:
    """Write what the report says of halos and flow."""
    results = RunResults(run.folder.root)
    halos, flow, channels = (run.folder.read_table(n) for n in (HALOS, FLOW, HALO_CHANNELS))
    said = [_strongest(halos), _like(halos), _flow(flow), _caution(results)]
    leave_section(
        run,
        stage,
        [*_properties(halos), *_pairs(halos, flow, channels)],
        title="Who listens to them",
        sentence=f"{_headline(halos)}.",
        findings=tuple(filter(None, said)),
        tables=(
            SectionTable(file=HALOS, title="The halos"),
            SectionTable(file=FLOW, title="The flow between types"),
        ),
        how=(
            "A halo always exists: it is the top of the next layer by the share of its input that"
            " comes from a type. Read its p-value, and how far its share is above that of as many"
            " sources drawn at random. Rows of a flow sum to 1; a large type expects a large share."
        ),
    )


def _properties(halos: pd.DataFrame) -> list[Drawing]:
    """Return the redundancy and the synergy of every halo, beside the rest of its layer."""
    named = {"target": "layer_name", "type": "source_cluster", "channels": "halo_size"}
    others = {f"{name}_others": f"other_{name}" for name in _PROPERTIES}
    found = list(halos.rename(columns=named | others).itertuples(index=False))
    return [
        Drawing(
            f"halo_{name}",
            f"Mean {name} of every halo and of the rest of its layer.",
            partial(figures.plot_halo_properties, found, measure=name),
        )
        for name in _PROPERTIES
    ]


def _pairs(halos: pd.DataFrame, flow: pd.DataFrame, channels: pd.DataFrame) -> list[Drawing]:
    """Return the flow between types, and the strongest halo, of every two layers."""
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
    counts = [int((halos[f"{name}_p"] <= _LEVEL).sum()) for name in _PROPERTIES]
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
