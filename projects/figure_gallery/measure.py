"""What the gallery draws: results of the digits CNN, of SmolLM2, and of the studies in docs/."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from nodelens import CompositeLens, Lens, LensResult, load_model
from nodelens.analysis.causal import ablation_validation, cascade, hit_rate_sweep
from nodelens.analysis.clustering import CrossLayerHaloAnalysis, MetricSpaceClustering
from nodelens.analysis.supernodes import select_supernodes
from nodelens.data.text import text_batches
from nodelens.experiments.stages.analysis import layer_ranks, rank_correlation
from nodelens.model.packaged import packaged_model
from nodelens.pruning import shrink
from projects.pruning_curves.networks import Batches, digits

__all__ = ["measured"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
HIDDEN = ("conv1", "conv2", "fc1")
"""The layers of the digits CNN whose channels are scored."""
_NAMES = [
    "conv1",
    "norm1",
    "relu1",
    "conv2",
    "norm2",
    "relu2",
    "pool",
    "flatten",
    "fc1",
    "relu3",
    "fc2",
]
_LENSES = ("rayleigh_quotient", "average_redundancy", "synergy_gaussian_mmi", "taylor_saliency")


def measured(tokens: int = 2048) -> dict[str, Any]:
    """Return everything that the calls of the gallery name."""
    network = digits()
    # Layers with names: the study's network numbers them.
    model = nn.Sequential(OrderedDict(zip(_NAMES, network.model, strict=True))).eval()
    batches, test = network.calibration, network.test
    with_layers = [Lens.from_name(name, layers=list(HIDDEN)) for name in _LENSES]
    result = CompositeLens(with_layers).run(model, batches, progress=False)
    found: dict[str, Any] = {"result": result, **_clusters(result, model, batches)}
    found |= _causal(model, test, result, found["clusters"])
    found["reports"] = _reports(model, test, result)
    found["proxy"] = _language(tokens)
    return found | _tables(result) | _studies()


def _tables(result: LensResult) -> dict[str, pd.DataFrame]:
    """The tables that a run has of its scores."""
    wide = result.to_pandas().pivot_table(
        index=["layer", "channel"], columns="score", values="value", sort=False
    )
    channels = wide[list(_LENSES)].reset_index()
    return {
        "ranks": layer_ranks(channels),
        "means": channels.drop(columns="channel").groupby("layer", sort=False).mean().T,
        "correlation": rank_correlation(channels),
    }


def _clusters(result: Any, model: nn.Sequential, batches: Batches) -> dict[str, Any]:
    clusterer = MetricSpaceClustering(n_clusters=4, seed=42)
    clusters = {
        layer: clusterer.fit(*(result[layer][name] for name in _LENSES[:3]), layer_name=layer)
        for layer in HIDDEN
    }
    halo = CrossLayerHaloAnalysis(percentile=90.0)
    with torch.no_grad():
        arriving = model[:3](torch.cat([x for x, _ in batches[:4]]))
        behind = model[:7](torch.cat([x for x, _ in batches[:4]]))
    influence = halo.compute_influence(model.conv2.weight, arriving)
    members, relative = halo.find_halo(influence, clusters["conv1"].channels_of("critical"))
    flow = halo.cluster_flow(influence, *(_numbers(clusters[n].channel_types) for n in HIDDEN[:2]))
    later = halo.compute_influence(model.fc1.weight, behind)
    halos = [
        halo.analyse_halo(
            halo.find_halo(reach, clusters[source].channels_of(kind))[0],
            *(result[target][name] for name in _LENSES[1:3]),
            layer_name=target,
            cluster_name=kind,
        )
        for reach, source, target in ((influence, "conv1", "conv2"), (later, "conv2", "fc1"))
        for kind in ("critical", "redundant", "synergistic", "background")
    ]
    return {
        "clusters": clusters,
        "influence": influence,
        "flow": flow,
        "members": members,
        "relative": relative,
        "halos": halos,
        "types": list(_TYPES),
    }


_TYPES = ("critical", "redundant", "synergistic", "background")


def _numbers(types: list[str]) -> list[int]:
    return [_TYPES.index(name) for name in types]


def _causal(model: nn.Sequential, test: Batches, result: Any, clusters: Any) -> dict[str, Any]:
    saliency = result.scores("taylor_saliency")
    core = {n: units.tolist() for n, units in select_supernodes(saliency, 0.2).items()}
    others = {n: [c for c in range(len(s)) if c not in core[n]] for n, s in saliency.items()}
    types = {kind: {n: clusters[n].channels_of(kind).tolist() for n in HIDDEN} for kind in _TYPES}
    return {
        "core": core,
        "validation": ablation_validation(model, test, saliency, progress=False),
        "sweep": hit_rate_sweep(model, test, core, others, progress=False),
        "types_removed": cascade(model, test, types, progress=False),
    }


def _reports(model: nn.Sequential, test: Batches, result: Any) -> dict[str, Any]:
    saliency = result.scores("taylor_saliency")
    return {
        f"{amount:.0%} of channels removed": shrink(
            model, {n: _kept(scores, amount) for n, scores in saliency.items()}, test[0], rounds=9
        ).report
        for amount in (0.25, 0.5, 0.75)
    }


def _kept(scores: Any, amount: float) -> Any:
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[scores.argsort()[: round(amount * len(scores))]] = False
    return kept


def _language(tokens: int) -> Mapping[str, Any]:
    """The loss proxy of every feed-forward unit of SmolLM2: 30 layers of 1,536."""
    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)
    batches = text_batches("encyclopaedia", model.tokenizer, 2, 128, tokens)
    lens = Lens.from_name("scar_loss_proxy")
    return lens.run(model, list(batches), progress=False)


def _studies() -> dict[str, Any]:
    curves = pd.read_csv(DOCS / "data" / "pruning-curves-digits.csv")
    chosen = ["random", "taylor_saliency", "rayleigh_quotient", "weight_magnitude"]
    return {
        "perplexities": pd.read_csv(DOCS / "data" / "smollm2-pruning.csv"),
        "accuracies": curves[curves["score"].isin(chosen) & (curves["mode"] != "high")],
        "orders": curves[curves["score"].isin(["random", "taylor_saliency"])],
        "board": pd.read_csv(DOCS / "data" / "leaderboard-digits.csv"),
    }
