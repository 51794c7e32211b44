"""The figures of the gallery: the call that makes each, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENTRIES", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A figure: `call` is evaluated as it is printed, with what was measured by its names."""

    name: str
    title: str
    call: str
    text: str


ENTRIES = (
    Entry(
        "histogram",
        "Score histogram",
        'plot_score_histogram(result, score="average_redundancy")',
        "One histogram a layer, over the same bins; a tick is the median.",
    ),
    Entry(
        "violin",
        "Violins",
        'plot_violin(result, score="taylor_saliency", log=True)',
        "Kernel densities, the middle half as a bar, the median as a dot.",
    ),
    Entry(
        "violin-deep",
        "Violins of 30 layers",
        'plot_violin(proxy, log=True, name="loss proxy")',
        "SmolLM2-135M, 1,536 feed-forward units a layer.",
    ),
    Entry(
        "heatmap",
        "Layers by metrics",
        "plot_layer_heatmap(ranks, values=means)",
        "Colour: mean rank of the layer's channels among all; numbers: mean score. Both tables are "
        "in the folder of every run: `RunResults(...).layer_ranks`, `.layer_means`.",
    ),
    Entry(
        "correlation",
        "Rank correlation",
        "plot_rank_correlation(correlation)",
        "How alike scores rank the channels of a layer: `RunResults(...).rank_correlation`.",
    ),
    Entry(
        "scatter-matrix",
        "Scatter matrix",
        "plot_scatter_matrix(result, ranks=True)",
        "Every two scores by their ranks within layers, and Spearman's correlation. Returns an "
        "array of axes. Colours are layers.",
    ),
    Entry(
        "depth",
        "Depth profile of a score",
        'plot_depth(proxy, log=True, name="loss proxy")',
        "The median channel of each layer, on the middle half and the middle 90%.",
    ),
    Entry(
        "depth-lines",
        "Depth profile of numbers",
        'plot_depth(ranks, name="mean rank")',
        "A line a series, from a table or `{series: {layer: number}}`.",
    ),
    Entry(
        "clusters",
        "Clusters in two dimensions",
        'plot_clusters(clusters["fc1"])',
        "Types of channels; the title says where noise has clusters as tight.",
    ),
    Entry(
        "clusters-3d",
        "Clusters in three dimensions",
        'plot_clusters_3d(clusters["fc1"])',
        "All three metrics that channels are clustered by.",
    ),
    Entry(
        "type-shares",
        "Types by depth",
        "plot_type_shares(clusters)",
        "How many channels of each layer are of each type.",
    ),
    Entry(
        "flow",
        "Flow between types",
        "plot_cluster_flow(flow, types, types)",
        "The share of each type's influence that goes to each type of the next layer.",
    ),
    Entry(
        "influence",
        "Influence",
        'plot_influence(influence, source_types=clusters["conv1"].channel_types, '
        'target_types=clusters["conv2"].channel_types)',
        "Every channel's influence on every channel of the next layer, type by type.",
    ),
    Entry(
        "halo",
        "A halo",
        'plot_halo(relative, members, source="critical channels")',
        "The channels of the next layer that take most of their input from a cluster.",
    ),
    Entry(
        "halo-properties",
        "Halo properties",
        "plot_halo_properties(halos)",
        "The mean redundancy in each halo and in the rest of its layer; in brackets its size.",
    ),
    Entry(
        "concentration",
        "Concentration (Lorenz curves)",
        'plot_concentration(proxy, name="loss proxy")',
        "The share of the loss proxy that the top units of each layer hold.",
    ),
    Entry(
        "supernodes",
        "Supernode profile",
        'plot_supernodes(proxy, layer="model.layers.15.mlp.down_proj", name="loss proxy")',
        "The units of one layer from high to low, the top 1% marked.",
    ),
    Entry(
        "damage",
        "Score against measured damage",
        'plot_damage(validation, name="Taylor saliency", log=True)',
        "What silencing each channel costs, against what a score foretold.",
    ),
    Entry(
        "intervals",
        "Estimates",
        "plot_intervals({n: (e.value, e.low, e.high) for n, e in validation.estimates.items()})",
        "What a causal check estimates, on 95% intervals; `validation.plot()` is the same.",
    ),
    Entry(
        "doses",
        "Dose and response",
        "plot_doses(sweep)",
        "As many channels go at every dose; the dose is the share of the core among them.",
    ),
    Entry(
        "cascade",
        "Removal by type",
        "plot_doses(types_removed)",
        "The same for channels of each type, with channels of any type as the control.",
    ),
    Entry(
        "sparsity-accuracy",
        "Sparsity against accuracy",
        "plot_sparsity(accuracies, dense=0.986, chance=0.1)",
        "Means of the random orders on a band from the lowest to the highest seed.",
    ),
    Entry(
        "sparsity-perplexity",
        "Sparsity against perplexity",
        'plot_sparsity(perplexities, metric="perplexity")',
        "SmolLM2-135M; bars are the intervals of the table.",
    ),
    Entry(
        "sensitivity",
        "Accuracy by order",
        "plot_sensitivity(orders, chance=0.1)",
        "Lowest scores first. A table of both modes, as `results/sensitivity.csv` of a run, has a "
        "line of each.",
    ),
    Entry(
        "latency",
        "Before and after shrinking",
        "plot_latency(reports)",
        'Median times; `quantity="parameters"`, `"bytes"` and `"macs"` draw the others.',
    ),
    Entry(
        "leaderboard",
        "Leaderboard",
        "plot_leaderboard(board, most=15)",
        "Spearman's correlation with measured damage; hollow: a score without direction.",
    ),
)
