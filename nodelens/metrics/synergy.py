"""What lenses on the atoms of information about a target have in common."""

from __future__ import annotations

from collections.abc import Sequence

from nodelens.metrics.lens import MetricLens

__all__ = ["SynergyLens"]


class SynergyLens(MetricLens):
    """No correlation counts as more than 1 - `eps`; pairs above it are copies."""

    family = "synergy"
    unit = "nat"
    minimum_rows = 3

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.eps = eps
