"""Mergeable statistics: one matrix product or one pass a batch, exact over any split."""

from nodelens.statistics.base import Constant, Sample, Statistic, wide
from nodelens.statistics.comoments import ClassMoments, CoMoments, CrossMoments
from nodelens.statistics.gradients import ActivationGradient, WeightUpdates
from nodelens.statistics.moments import AbsoluteMean, Extremes, Mean, Moments, NearZero
from nodelens.statistics.patches import PatchMoments, PositionMoments
from nodelens.statistics.read import Read
from nodelens.statistics.sketch import Histogram, QuantileSketch
from nodelens.statistics.weights import RowNorms, Weights
from nodelens.statistics.window import Window

__all__ = [
    "AbsoluteMean",
    "ActivationGradient",
    "ClassMoments",
    "CoMoments",
    "Constant",
    "CrossMoments",
    "Extremes",
    "Histogram",
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
