"""Figures: each function takes results or plain data, and axes, and returns those it drew on."""

from nodelens.figures.clusters import plot_cluster_flow, plot_clusters, plot_clusters_3d, plot_halo
from nodelens.figures.concentration import plot_concentration
from nodelens.figures.curves import plot_sensitivity
from nodelens.figures.damage import plot_damage
from nodelens.figures.depth import plot_depth
from nodelens.figures.doses import plot_doses
from nodelens.figures.halo_properties import plot_halo_properties
from nodelens.figures.histogram import plot_score_histogram
from nodelens.figures.influence import plot_influence
from nodelens.figures.intervals import plot_intervals
from nodelens.figures.latency import plot_latency
from nodelens.figures.leaderboard import plot_leaderboard
from nodelens.figures.save import save_figure
from nodelens.figures.scatter_matrix import plot_scatter_matrix
from nodelens.figures.sparsity import plot_sparsity
from nodelens.figures.supernodes import plot_supernodes
from nodelens.figures.tables import plot_layer_heatmap, plot_rank_correlation
from nodelens.figures.type_shares import plot_type_shares
from nodelens.figures.violin import plot_violin

__all__ = [
    "plot_cluster_flow",
    "plot_clusters",
    "plot_clusters_3d",
    "plot_concentration",
    "plot_damage",
    "plot_depth",
    "plot_doses",
    "plot_halo",
    "plot_halo_properties",
    "plot_influence",
    "plot_intervals",
    "plot_latency",
    "plot_layer_heatmap",
    "plot_leaderboard",
    "plot_rank_correlation",
    "plot_scatter_matrix",
    "plot_score_histogram",
    "plot_sensitivity",
    "plot_sparsity",
    "plot_supernodes",
    "plot_type_shares",
    "plot_violin",
    "save_figure",
]
