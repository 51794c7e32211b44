"""Which channels of a network matter, which are redundant, and what happens without them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodelens.aggregator import Aggregator
    from nodelens.composite import CompositeLens
    from nodelens.errors import NodeLensError
    from nodelens.lens import Lens
    from nodelens.metrics import MetricLens, get_metric, list_metrics
    from nodelens.model import ModelWrapper, load_model
    from nodelens.result import LensResult
    from nodelens.settled import Settled

    __version__: str

__all__ = [
    "Aggregator",
    "CompositeLens",
    "Lens",
    "LensResult",
    "MetricLens",
    "ModelWrapper",
    "NodeLensError",
    "Settled",
    "get_metric",
    "list_metrics",
    "load_model",
]

_HOMES = {
    "Aggregator": "aggregator",
    "CompositeLens": "composite",
    "Lens": "lens",
    "LensResult": "result",
    "MetricLens": "metrics",
    "ModelWrapper": "model",
    "NodeLensError": "errors",
    "Settled": "settled",
    "get_metric": "metrics",
    "list_metrics": "metrics",
    "load_model": "model",
}


def __getattr__(name: str) -> Any:
    """Return a public name, imported when it is first asked for: the command needs no torch."""
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        return _part(name)
    # All at once, so that what is registered does not depend on what was asked for first.
    for public, home in _HOMES.items():
        globals()[public] = getattr(import_module(f"nodelens.{home}"), public)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})


def _part(name: str) -> Any:
    """Return a module of the package, as `nodelens.errors`; AttributeError when there is none."""
    if not name.startswith("_"):
        try:
            return import_module(f"nodelens.{name}")
        except ModuleNotFoundError as missing:
            if missing.name != f"nodelens.{name}":
                raise
    raise AttributeError(f"module 'nodelens' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nodelens")
    except PackageNotFoundError:
        return "0+unknown"
