"""Mergeable statistics: one matrix product or one pass a batch, exact over any split."""

from nodelens.statistics.base import Constant, Statistic
from nodelens.statistics.comoments import (
    ClassMoments,
    CoMoments,
    CrossMoments,
    LabelledCoMoments,
)
from nodelens.statistics.gradients import ActivationGradient, WeightUpdates
from nodelens.statistics.layers import CrossLayerMoments
from nodelens.statistics.moments import AbsoluteMean, Extremes, Mean, Moments, NearZero
from nodelens.statistics.patches import PatchMoments, PositionMoments
from nodelens.statistics.read import Read
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample
from nodelens.statistics.sketch import Histogram, QuantileSketch
from nodelens.statistics.weights import RowNorms, Weights
from nodelens.statistics.window import Window

__all__ = [
    "AbsoluteMean",
    "ActivationGradient",
    "ClassMoments",
    "CoMoments",
    "Constant",
    "CrossLayerMoments",
    "CrossMoments",
    "Extremes",
    "Histogram",
    "LabelledCoMoments",
    "Mean",
    "Moments",
    "NearZero",
    "PatchMoments",
    "PositionMoments",
    "QuantileSketch",
    "Read",
    "RowNorms",
    "Sample",
    "Statistic",
    "WeightUpdates",
    "Weights",
    "Window",
    "wide",
]
