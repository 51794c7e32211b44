"""Figures: each function takes plain data and an axes, and returns the axes it drew on."""

from nodelens.figures.clusters import plot_cluster_flow, plot_clusters, plot_halo
from nodelens.figures.curves import plot_sensitivity
from nodelens.figures.histogram import plot_score_histogram
from nodelens.figures.runs import plot_run_curves
from nodelens.figures.tables import plot_layer_heatmap, plot_rank_correlation

__all__ = [
    "plot_cluster_flow",
    "plot_clusters",
    "plot_halo",
    "plot_layer_heatmap",
    "plot_rank_correlation",
    "plot_run_curves",
    "plot_score_histogram",
    "plot_sensitivity",
]
