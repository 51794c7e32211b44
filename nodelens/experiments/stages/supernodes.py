"""Supernodes of every feed-forward block: how few hold how much, and who writes as they do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nodelens import figures
from nodelens.analysis.supernodes import (
    concentration,
    outlier_z,
    overlap,
    select_supernodes,
    write_concentration,
    write_halo,
)
from nodelens.configs import Config
from nodelens.errors import InvalidValueError
from nodelens.experiments.artifacts import SUPERNODES, RunResults
from nodelens.experiments.lenses import check_score
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run, Stage
from nodelens.metrics.formulas import information_with_core, scar_conn, scar_prot
from nodelens.model import ModelWrapper
from nodelens.model.layers import weight_rows
from nodelens.pruning.signals import core_first, core_moments
from nodelens.report import SectionNumber, SectionTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SupernodeStage"]

OVERLAP = "results/supernode_overlap.csv"
UNITS = "results/supernode_units.csv"
SHARES = (0.01, 0.05, 0.1)

Layers = dict[str, Tensor]


class SupernodeStage(Stage):
    """Writes a table of blocks, one of units and one of how definitions overlap, and two figures.

    From the scores of the run and the weights of its down projections; with `redundancy`, from a
    second pass over the calibration blocks.
    """

    name = "supernodes"
    needs = ("data", "network", "measure")
    code = ("analysis", "metrics", "pruning/signals.py", "experiments/stages/supernodes.py")

    def check(self, run: Run) -> None:
        check_score(run.config, ("supernode", "score"), _section(run.config).score)

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json", exclude={"causal"})

    def protocol(self, config: Config) -> str:
        given = _section(config)
        second = " Redundancy is from a second pass with gradients." if given.redundancy else ""
        return (
            f"Supernodes are the {given.core:.1%} of a block's units with the highest"
            f" {given.score}; the halo are the {given.halo:.0%} of the others whose weights lie"
            f" most in the {given.dimensions:.0%} of dimensions that the core writes to."
            f" z is relative to the block's median.{second}"
        )

    def run(self, run: Run) -> str:
        import pandas as pd

        results, given = RunResults(run.folder.root), _section(run.config)
        scores = _of_units(run, results.scores.scores(given.score))
        cores = select_supernodes(scores, given.core)
        down = {name: _down(run, name, len(found)) for name, found in scores.items()}
        signals = _redundancies(run, cores) if given.redundancy else {}
        units = {
            name: _units(given, found, cores[name], down[name], signals.get(name))
            for name, found in scores.items()
        }
        layers = pd.DataFrame([_layer(name, scores[name], units[name]) for name in scores])
        run.folder.write_table(SUPERNODES, layers)
        run.folder.write_table(
            UNITS, pd.concat([table.assign(layer=name) for name, table in units.items()])
        )
        run.folder.write_table(OVERLAP, _overlaps(results, scores, given))
        return f"{sum(map(len, cores.values()))} supernodes in {len(cores)} blocks"

    def show(self, run: Run) -> None:
        layers = run.folder.read_table(SUPERNODES)
        leave_section(
            run,
            self.name,
            _drawings(run, layers),
            **_said(layers, _section(run.config).score),
        )


def _section(config: Config) -> Any:
    assert config.supernode is not None
    return config.supernode


def _of_units(run: Run, scores: Layers) -> Layers:
    """Return the scores that are of what a layer takes in, as those of units are."""
    model = ModelWrapper(run.network)
    found = {
        name: values.double()
        for name, values in scores.items()
        if values.ndim == 1 and weight_rows(model.torch_module(name)).shape[1] == len(values)
    }
    if not found:
        raise run.config.error(
            ("supernode", "score"),
            "scores no units of a feed-forward block, expected one that does",
        )
    return found


def _down(run: Run, name: str, units: int) -> Tensor:
    weight: Tensor = weight_rows(ModelWrapper(run.network).torch_module(name)).detach().cpu()
    if weight.shape[1] != units:
        raise InvalidValueError(
            f"layer {name!r}: {units} scores, expected one of each of {weight.shape[1]} units"
        )
    return weight


def _redundancies(run: Run, cores: Layers) -> Layers:
    """Return every unit's information with the core of its block, from one pass."""
    model = ModelWrapper(run.network)
    batches = run.splits.batches(run.splits.calibration)
    found = {}
    for name, moments in core_moments(model, batches, cores).items():
        squares = moments.diagonal().cpu()
        # Units stand in the order core first.
        ordered = information_with_core(moments.m2.cpu(), squares, torch.arange(len(cores[name])))
        found[name] = torch.empty_like(ordered)
        found[name][core_first(cores[name], len(squares))] = ordered
    return found


def _units(
    given: Any, scores: Tensor, core: Tensor, down: Tensor, redundancy: Tensor | None
) -> pd.DataFrame:
    """Return a row a unit: its role, how far out it is, and where it writes."""
    import pandas as pd

    halo, connection = write_halo(down, core, given.halo, dimensions=given.dimensions)
    role = np.full(len(scores), "other", dtype=object)
    role[halo.numpy()], role[core.numpy()] = "halo", "core"
    columns = {
        "layer": "",
        "channel": range(len(scores)),
        "role": role,
        "z": outlier_z(scores).numpy(),
        "write_connection": connection.numpy(),
        "write_dimensions": write_concentration(down).numpy(),
    }
    if redundancy is not None:
        prot = scar_prot(scores, redundancy, given.floor, core)
        conn = scar_conn(scores, connection, redundancy, given.floor, core)
        columns |= {
            "redundancy": redundancy.numpy(),
            "scar_prot": prot.numpy(),
            "scar_conn": conn.numpy(),
        }
    return pd.DataFrame(columns)


def _layer(name: str, scores: Tensor, units: pd.DataFrame) -> dict[str, Any]:
    core, others = units[units["role"] == "core"], units[units["role"] != "core"]
    return {
        "layer": name,
        "units": len(units),
        "core": len(core),
        **{f"top {share:.0%}": held for share, held in concentration(scores, SHARES).items()},
        "largest z": units["z"].max(),
        "write dimensions, core": core["write_dimensions"].median(),
        "write dimensions, others": others["write_dimensions"].median(),
        **(
            {
                f"redundancy, {role}": units.loc[units["role"] == role, "redundancy"].mean()
                for role in ("halo", "other")
            }
            if "redundancy" in units
            else {}
        ),
    }


def _overlaps(results: RunResults, scores: Layers, given: Any) -> pd.DataFrame:
    """Return how alike every other score of the same units is, a row a block and score."""
    import pandas as pd

    rows = []
    for layer, own in scores.items():
        others = {
            name: found[layer].double()
            for name in results.scores.score_names
            if layer in (found := results.scores.scores(name)) and found[layer].shape == own.shape
        }
        alike = overlap({given.score: own, **others}, given.core)
        for name in others:
            if name != given.score:
                tables = {"jaccard": alike.jaccard, "spearman": alike.spearman}
                found = {key: table.loc[given.score, name] for key, table in tables.items()}
                rows.append({"layer": layer, "score": name, **found})
    return pd.DataFrame(rows, columns=["layer", "score", "jaccard", "spearman"])


def _drawings(run: Run, layers: pd.DataFrame) -> list[Drawing]:
    """Return how concentrated the scores of the blocks are, and that by depth."""
    given = _section(run.config)
    scores = RunResults(run.folder.root).scores.scores(given.score)
    values = {name: scores[name].double().numpy() for name in layers["layer"]}
    draw = partial(figures.plot_concentration, values, name=given.score, share=given.core)
    lines = {
        column: dict(zip(layers["layer"], layers[column], strict=True))
        for column in (f"top {share:.0%}" for share in SHARES)
    }
    depth = partial(figures.plot_depth, lines, name="share held")
    return [
        Drawing(
            "supernode_concentration", f"Share of {given.score} that the top units hold.", draw
        ),
        Drawing(
            "supernode_depth",
            f"Share of {given.score} held by the top units of every block, by depth.",
            depth,
        ),
    ]


def _said(layers: pd.DataFrame, score: str) -> dict[str, Any]:
    top = layers["top 1%"]
    middle, low, high = top.median(), top.min(), top.max()
    equal = (layers["units"] * 0.01).round().clip(lower=1) / layers["units"]
    return {
        "title": "Supernodes",
        "sentence": (
            f"The top 1% of a block's units hold {middle:.0%} of `{score}` in the median of"
            f" {len(top)} blocks, from {low:.0%} to {high:.0%}; an equal share would be"
            f" {equal.median():.1%}."
        ),
        "answers": "matter",
        "numbers": (SectionNumber(value=f"{middle:.0%}", label=f"of {score} in the top 1%"),),
        "tables": (
            SectionTable(file=SUPERNODES, title="Blocks"),
            SectionTable(file=OVERLAP, title="Overlap with other scores"),
        ),
        "channels": UNITS,
        "how": "One unit at least is the top 1%. A halo is chosen by weights alone.",
    }
