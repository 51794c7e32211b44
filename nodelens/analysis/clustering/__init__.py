"""Types of channels from clusters in the space of their metrics, and who listens to each type."""

from nodelens.analysis.clustering.clusters import ClusterResult, MetricSpaceClustering
from nodelens.analysis.clustering.comparison import Ablation, ablations, stability
from nodelens.analysis.clustering.features import FEATURE_SETS
from nodelens.analysis.clustering.flow import Flow, flow_test
from nodelens.analysis.clustering.halos import CrossLayerHaloAnalysis, HaloResult
from nodelens.analysis.clustering.influence import influence_of
from nodelens.analysis.clustering.null import StructureTest, gap_statistic, structure_test
from nodelens.analysis.clustering.permutation import Contrast
from nodelens.analysis.clustering.types import TYPE_MAPPINGS, TYPES

__all__ = [
    "FEATURE_SETS",
    "TYPES",
    "TYPE_MAPPINGS",
    "Ablation",
    "ClusterResult",
    "Contrast",
    "CrossLayerHaloAnalysis",
    "Flow",
    "HaloResult",
    "MetricSpaceClustering",
    "StructureTest",
    "ablations",
    "flow_test",
    "gap_statistic",
    "influence_of",
    "stability",
    "structure_test",
]
