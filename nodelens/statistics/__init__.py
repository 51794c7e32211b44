"""Mergeable statistics: one matrix product or one pass a batch, exact over any split."""

from nodelens.statistics.base import Constant, Statistic
from nodelens.statistics.classes import ClassCoMoments, ClassCrossMoments
from nodelens.statistics.comoments import (
    ClassMoments,
    CoMoments,
    CrossMoments,
    GroupCoMoments,
    LabelledCoMoments,
)
from nodelens.statistics.feature_maps import ChannelIndependence, MapRanks
from nodelens.statistics.gradients import ActivationGradient, WeightFisher, WeightUpdates
from nodelens.statistics.joint import JointCounts
from nodelens.statistics.layers import CrossLayerMoments
from nodelens.statistics.moments import AbsoluteMean, Extremes, Mean, Moments, NearZero
from nodelens.statistics.partners import PartnerMoments
from nodelens.statistics.patches import ClassPatchMoments, PatchMoments, PositionMoments
from nodelens.statistics.read import Read
from nodelens.statistics.reduce import wide
from nodelens.statistics.reference import ReferenceSpectrum
from nodelens.statistics.sample import Sample
from nodelens.statistics.sketch import Histogram, QuantileSketch
from nodelens.statistics.weights import RowCosines, RowNorms, SingularValues, Weights
from nodelens.statistics.window import Window

__all__ = [
    "AbsoluteMean",
    "ActivationGradient",
    "ChannelIndependence",
    "ClassCoMoments",
    "ClassCrossMoments",
    "ClassMoments",
    "ClassPatchMoments",
    "CoMoments",
    "Constant",
    "CrossLayerMoments",
    "CrossMoments",
    "Extremes",
    "GroupCoMoments",
    "Histogram",
    "JointCounts",
    "LabelledCoMoments",
    "MapRanks",
    "Mean",
    "Moments",
    "NearZero",
    "PartnerMoments",
    "PatchMoments",
    "PositionMoments",
    "QuantileSketch",
    "Read",
    "ReferenceSpectrum",
    "RowCosines",
    "RowNorms",
    "Sample",
    "SingularValues",
    "Statistic",
    "WeightFisher",
    "WeightUpdates",
    "Weights",
    "Window",
    "wide",
]
