"""Figures: each function takes plain data and an axes, and returns the axes it drew on."""

from nodelens.figures.clusters import plot_cluster_flow, plot_clusters, plot_halo
from nodelens.figures.concentration import plot_concentration
from nodelens.figures.curves import plot_sensitivity
from nodelens.figures.depth import plot_depth
from nodelens.figures.histogram import plot_score_histogram
from nodelens.figures.intervals import plot_intervals
from nodelens.figures.save import save_figure
from nodelens.figures.sparsity import plot_sparsity
from nodelens.figures.tables import plot_layer_heatmap, plot_rank_correlation

__all__ = [
    "plot_cluster_flow",
    "plot_clusters",
    "plot_concentration",
    "plot_depth",
    "plot_halo",
    "plot_intervals",
    "plot_layer_heatmap",
    "plot_rank_correlation",
    "plot_score_histogram",
    "plot_sensitivity",
    "plot_sparsity",
    "save_figure",
]
