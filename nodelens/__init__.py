"""Which channels of a network matter, which are redundant, and what happens without them."""

from importlib.metadata import PackageNotFoundError, version

from nodelens.aggregator import Aggregator
from nodelens.composite import CompositeLens
from nodelens.errors import NodeLensError
from nodelens.lens import Lens
from nodelens.metrics import MetricLens, get_metric, list_metrics
from nodelens.model import ModelWrapper, load_model
from nodelens.result import LensResult
from nodelens.settled import Settled

try:
    __version__ = version("nodelens")
except PackageNotFoundError:
    __version__ = "0+unknown"

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
