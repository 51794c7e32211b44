"""Metric lenses by name, and the formulas they share."""

from __future__ import annotations

from typing import Any

from nodelens.errors import UnknownNameError
from nodelens.lens import Lens
from nodelens.metrics.lens import MetricLens

__all__ = ["MetricLens", "get_metric", "list_metrics"]


def get_metric(name: str, **options: Any) -> MetricLens:
    """Return a metric lens by name, as `Lens.from_name` does; other lenses are UnknownNameError."""
    if not issubclass(Lens.named(name), MetricLens):
        raise UnknownNameError(
            f"lens {name!r} is not a metric; the metrics are {', '.join(list_metrics())}"
        )
    lens = Lens.from_name(name, **options)
    assert isinstance(lens, MetricLens)
    return lens


def list_metrics() -> list[str]:
    """Return the names of all metric lenses, sorted."""
    return [name for name in Lens.names() if issubclass(Lens.named(name), MetricLens)]
