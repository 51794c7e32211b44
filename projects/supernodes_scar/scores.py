"""Every score that the study orders units by, measured once and kept in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodelens import CompositeLens, Lens
from nodelens.files import load_tensors, save_tensors
from nodelens.metrics.formulas.supernodes import (
    connectivity,
    information_with_core,
    scar_conn,
    scar_prot,
    top_share,
)
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.signals import core_first, core_moments
from nodelens.pruning.strategies.reading import OfWeightStatistics
from nodelens.pruning.units import prunable
from nodelens.statistics.moments import Moments
from projects.supernodes_scar.study import Study

__all__ = ["PARTS", "Scores", "divided", "measure_scores"]

PARTS = 8
"""Parts of the calibration text that are scored by themselves, to go on from and to resample."""

Layers = dict[str, Tensor]
Say = Callable[[str], None]

_LENSES: dict[str, tuple[str, dict[str, Any]]] = {
    "loss proxy": ("scar_loss_proxy", {}),
    "activation power": ("scar_activation_power", {}),
    "activation peak": ("activation_max", {"site": "input"}),
    "mean": ("activation_mean", {"site": "input", "absolute": False}),
}


@dataclass(frozen=True)
class Scores:
    """Scores of every unit by layer, `{score: {layer: (units,)}}`, and by part of the text.

    `redundancy` is to the core by loss proxy, `redundancy to activations` to that by power.
    """

    whole: dict[str, Layers]
    parts: list[dict[str, Layers]]
    share: float
    down: Layers

    @cached_property
    def core(self) -> Layers:
        """Return the supernodes: the top share of every layer by loss proxy."""
        return {name: top_share(found, self.share) for name, found in self["loss proxy"].items()}

    @cached_property
    def active(self) -> Layers:
        """Return as many units of every layer, those of the highest activation power."""
        power = self["activation power"]
        return {name: top_share(found, self.share) for name, found in power.items()}

    def __getitem__(self, name: str) -> Layers:
        return self.whole[name]

    def scar_prot(self, core: str = "loss proxy") -> Layers:
        """Return SCAR-Prot; `core` says by which score the core was chosen."""
        cores, redundancy = self._around(core)
        return {
            name: scar_prot(proxy, redundancy[name], core=cores[name])
            for name, proxy in self["loss proxy"].items()
        }

    def scar_conn(self) -> Layers:
        """Return SCAR-Conn."""
        cores, redundancy = self._around("loss proxy")
        return {
            name: scar_conn(
                proxy,
                connectivity(self.down[name], cores[name]),
                redundancy[name],
                core=cores[name],
            )
            for name, proxy in self["loss proxy"].items()
        }

    def _around(self, core: str) -> tuple[Layers, Layers]:
        if core == "loss proxy":
            return self.core, self["redundancy"]
        return self.active, self["redundancy to activations"]


def measure_scores(study: Study, folder: Path, say: Say = print) -> Scores:
    """Return the scores, those that are in `folder` read from there."""
    kept = partial(_kept, folder, study.layers, say)
    parts = [
        kept(f"part-{number}", lambda batches=batches: _lenses(study, batches))
        for number, batches in enumerate(divided(study.calibration))
    ]
    weights = [_rows(batches) for batches in divided(study.calibration)]
    whole = {name: _joined(name, parts, weights) for name in _LENSES}
    down = {name: study.down(name) for name in study.layers}
    whole |= {"Wanda": _rated(study, whole, "wanda"), "FLAP": _rated(study, whole, "flap")}
    found = Scores(whole, parts, study.settings.core, down)
    whole |= kept("redundancy", lambda: _redundancies(study, found))
    return found


def _lenses(study: Study, batches: Sequence[Any]) -> dict[str, Layers]:
    made = [Lens.from_name(name, layers=study.layers, **o) for name, o in _LENSES.values()]
    lens = CompositeLens(made)
    result = lens.run(study.model, batches, progress=False)
    labels = dict(zip(_LENSES, lens.labels, strict=True))
    return {name: result.scores(label) for name, label in labels.items()}


def _rated(study: Study, whole: dict[str, Layers], name: str) -> Layers:
    """Return a strategy's scores from the moments of the units, which the lenses gave."""
    strategy = get_pruning_strategy(name)
    assert isinstance(strategy, OfWeightStatistics)
    rows, units = _rows(study.calibration) * study.settings.block_size, {}
    for layer, unit in prunable(study.model, study.layers).items():
        mean, power = whole["mean"][layer], whole["activation power"][layer]
        moments = Moments(rows, mean, rows * (power - mean.square()).clamp(min=0))
        units[layer] = strategy.rate_units({layer: {"inputs": moments}}, study.model, unit)
    return units


def _redundancies(study: Study, found: Scores) -> dict[str, Layers]:
    """Return every unit's information with both cores, from one pass."""
    both = {
        name: torch.unique(torch.cat([found.core[name], found.active[name]]))
        for name in study.layers
    }
    moments = core_moments(study.model, study.calibration, both)
    cores = {"redundancy": found.core, "redundancy to activations": found.active}
    return {
        label: {name: _informed(moments[name], both[name], core[name]) for name in study.layers}
        for label, core in cores.items()
    }


def _informed(moments: Any, rows: Tensor, core: Tensor) -> Tensor:
    chosen = torch.isin(rows, core).nonzero().flatten()
    squares = moments.diagonal()
    ordered = information_with_core(moments.m2[chosen], squares, chosen)
    shared = torch.empty_like(ordered)
    shared[core_first(rows, len(squares))] = ordered
    return shared


def _joined(name: str, parts: Sequence[dict[str, Layers]], weights: Sequence[int]) -> Layers:
    """Return the score of the whole text: the highest peak, the mean of everything else."""
    found = {}
    for layer in parts[0][name]:
        each = torch.stack([part[name][layer].double() for part in parts])
        share = torch.tensor(weights, dtype=torch.float64)[:, None] / sum(weights)
        found[layer] = each.amax(0) if name == "activation peak" else (each * share).sum(0)
    return found


def divided(batches: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the batches in parts of about the same number, in order."""
    count = min(PARTS, len(batches))
    ends = [round(len(batches) * number / count) for number in range(count + 1)]
    return [batches[start:stop] for start, stop in pairwise(ends)]


def _rows(batches: Sequence[Any]) -> int:
    return sum(len(batch["input_ids"]) for batch in batches)


def _kept(
    folder: Path, layers: Sequence[str], say: Say, name: str, make: Callable[[], dict[str, Layers]]
) -> dict[str, Layers]:
    """Return what is in the file of that name, made first where there is none."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        say(f"measuring {name}")
        save_tensors(path, {f"{s}/{n}": v for s, found in make().items() for n, v in found.items()})
    tensors = load_tensors(path)[0]
    scores = sorted({key.split("/", 1)[0] for key in tensors})
    return {score: {layer: tensors[f"{score}/{layer}"] for layer in layers} for score in scores}
