"""Strategies that put several scores of a unit together, each in a role."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics import MetricLens, get_metric
from nodelens.metrics.formulas import normalised
from nodelens.model import ModelWrapper
from nodelens.model.layers import weight_rows
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.measured import lens_alone, many_scores
from nodelens.pruning.strategy import Strategy
from nodelens.pruning.units import Units

__all__ = ["LENS_ROLES", "ROLES", "ByRoles", "Parts", "check_roles", "unit"]

Parts = Mapping[str, Tensor]
"""The scores of one layer's units by role, each `(units,)`, float64."""

LENS_ROLES = ("rq", "redundancy", "synergy", "mi")
ROLES = (*LENS_ROLES, "taylor", "proxy", "magnitude")


class ByRoles(Strategy):
    """Scores in roles: `rq`, `redundancy`, `synergy` and `mi` are metric lenses by name.

    `taylor` is E abs(y g) and `proxy` E (y g)^2 at what a layer returns, at the units of an FFN.
    All are measured in one pass; `given={role: {layer: scores}}` are taken as they are.
    """

    unit = "channels"
    needs: ClassVar[tuple[str, ...]] = ("inputs", "targets")
    options: ClassVar[Mapping[str, Any]] = {
        "rq": "rayleigh_quotient",
        "redundancy": "average_redundancy",
        "synergy": "gaussian_pid_synergy_mmi",
        "mi": "mi_about_class",
        "given": None,
    }
    given: Mapping[str, Mapping[str, Tensor]] | None

    @abstractmethod
    def roles(self) -> tuple[str, ...]:
        """Return the roles that the score is made of."""

    @abstractmethod
    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        """Return the scores of all layers from `{layer: {role: scores}}`."""

    def _check(self) -> None:
        super()._check()
        check_roles("given", self.given)
        for role in set(self.roles()) & set(LENS_ROLES) - set(self.given or {}):
            get_metric(getattr(self, role))

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the score of a layer's channels; `gradients` are those of what it returns."""
        parts: dict[str, Tensor] = {"magnitude": weight_rows(layer).double().norm(dim=1)}
        for role in self.roles():
            if role != "magnitude":
                parts[role] = lens_alone(self._lens(role, "output"), layer, given)
        return self.combined({"layer": parts})["layer"]

    def _batches(self, model: ModelWrapper, batches: Iterable[Any] | None) -> Iterable[Any]:
        missing = set(self.roles()) - set(self.given or {}) - {"magnitude"}
        return [] if batches is None and not missing else super()._batches(model, batches)

    def _scores(self, run: Run) -> dict[str, Tensor]:
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in run.units}
        for role in set(self.roles()) & set(self.given or {}):
            for name, unit in run.units.items():
                parts[name][role] = self._as_given(role, unit)
        if "magnitude" in self.roles() and "magnitude" not in (self.given or {}):
            for name, unit in run.units.items():
                parts[name]["magnitude"] = unit.weights(run.model).double().norm(dim=1).cpu()
        self._measure(run, parts)
        return self.combined(parts)

    def _measure(self, run: Run, parts: dict[str, dict[str, Tensor]]) -> None:
        roles = [r for r in self.roles() if r not in (self.given or {}) and r != "magnitude"]
        sites = {
            site: {n: unit for n, unit in run.units.items() if unit.site == site}
            for site in ("output", "input")
        }
        asked = [(r, self._lens(r, site), own) for r in roles for site, own in sites.items() if own]
        if not asked:
            return
        lenses = [(lens, own) for _, lens, own in asked]
        found = many_scores(lenses, run.model, run.batches, **run.options)
        for (role, _, _), scores in zip(asked, found, strict=True):
            for name, score in scores.items():
                parts[name][role] = score.double()

    def _lens(self, role: str, site: str) -> MetricLens:
        if role == "taylor":
            return get_metric("scar_taylor" if site == "input" else "taylor_saliency")
        if role == "proxy":
            if site == "input":
                return get_metric("scar_loss_proxy")
            return get_metric("taylor_saliency", mode="sq_mean")
        name: str = getattr(self, role)
        return get_metric(name)

    def _as_given(self, role: str, unit: Units) -> Tensor:
        scores = (self.given or {})[role]
        if unit.name not in scores:
            raise InvalidValueError(f"given {role!r} lacks layer {unit.name!r}")
        score = torch.as_tensor(scores[unit.name]).double()
        if score.shape != (unit.size,):
            raise InvalidValueError(
                f"layer {unit.name!r}: given {role!r} has shape {tuple(score.shape)}, "
                f"expected ({unit.size},)"
            )
        return score


def check_roles(what: str, given: Mapping[str, Any] | None) -> None:
    """Raise InvalidValueError, with the nearest name, for a role that is none."""
    for role in given or {}:
        if role not in ROLES:
            raise InvalidValueError(
                f"{what} has the role {role!r}{nearest(role, ROLES)}, "
                f"expected some of {', '.join(ROLES)}"
            )


def unit(scores: Tensor) -> Tensor:
    """Return scores of a layer brought to 0 for the lowest and 1 for the highest."""
    return normalised(scores.double(), "minmax")
