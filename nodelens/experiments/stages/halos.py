"""Who listens to a type: its halo in the layers that read it, and the flow between types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from nodelens.analysis.clustering import TYPES, CrossLayerHaloAnalysis, flow_test, influence_of
from nodelens.configs import Config, HaloConfig
from nodelens.experiments.artifacts import (
    CLUSTERS,
    FLOW,
    HALO_CHANNELS,
    HALOS,
    INFLUENCE,
    SCORES,
)
from nodelens.experiments.halo_section import leave_halo_section
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.clusters import adjusted
from nodelens.metrics import MetricLens
from nodelens.model import Layer, ModelWrapper
from nodelens.pruning.links import Link, find_links
from nodelens.result import LensResult
from nodelens.statistics import Moments, Read, Weights

__all__ = ["HaloStage", "link_key"]

_READS = {"weights": Read("weight", Weights), "arriving": Read("input", Moments)}


class _Arriving(MetricLens):
    """Reads the weights of layers and what arrives there; it is measured, never scored."""

    name = "arriving"

    def reads(self, layer: Layer) -> dict[str, Read]:
        return dict(_READS)

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class _Pair:
    """A layer and one that reads it: influence `(targets, sources)`, and a type a channel."""

    link: Link
    influence: Tensor
    source_types: list[str]
    target_types: list[str]

    @property
    def names(self) -> dict[str, str]:
        return {"source": self.link.source, "target": self.link.target}


class HaloStage(Stage):
    """Writes influence between hidden layers, the halo of every type, and flow between types."""

    name = "halos"
    needs = ("data", "network", "measure", "clustering")
    code = (
        "data",
        "model",
        "statistics",
        "analysis/clustering",
        "pruning/groups.py",
        "pruning/links.py",
        "experiments/halo_section.py",
        "experiments/stages/halos.py",
    )

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        given = _section(config)
        times = " times the standard deviation of what arrives" * given.use_activation_weight
        return (
            "Which layer reads which is taken from the network's graph. Influence is the size of"
            f" the weights, taps and positions summed,{times} on the rows that lenses read. A halo"
            f" is all channels at or above percentile {given.percentile:g} of the share of their"
            f" input that comes from a type. {given.permutations} draws of as many sources, and of"
            " the next layer's types, give the p-values, adjusted for the number of halos and of"
            " flows (Benjamini and Hochberg 1995)."
        )

    def run(self, run: Run) -> str:
        types = _types(run.folder.read_table(CLUSTERS))
        model = ModelWrapper(run.network)
        example = model.prepare_batch(run.splits.test.tensors[0][:2].to(run.device))
        links, without = find_links(model, example, list(types))
        if not links:
            raise run.config.error(
                ("halo",),
                f"no hidden layer reads another ({'; '.join(without.values())}); expected two"
                " hidden layers, or no section",
            )
        pairs = _pairs(run, model, links, types)
        influence = {link_key(pair.link): pair.influence for pair in pairs}
        run.folder.write_tensors(INFLUENCE, influence)
        given = _section(run.config)
        halos = pd.concat([_halos(given, pair) for pair in pairs], ignore_index=True)
        tested = _tested(run, given, pairs)
        tested["p_adjusted"] = adjusted(tested["p_value"])
        flow = pd.concat([_flow(given, pair) for pair in pairs], ignore_index=True)
        flow["p_adjusted"] = adjusted(flow["p_value"])
        for name, table in {HALO_CHANNELS: halos, HALOS: tested, FLOW: flow}.items():
            run.folder.write_table(name, table)
        beyond = int((tested["p_adjusted"] <= 0.05).sum())
        return f"{beyond} of {len(tested)} halos stronger than of sources drawn at random"

    def show(self, run: Run) -> None:
        leave_halo_section(run, self.name)


def link_key(link: Link) -> str:
    """Return what the influence of a link is called in its file.

    >>> link_key(Link("conv1", "conv2"))
    'conv1 -> conv2'
    """
    return f"{link.source} -> {link.target}"


def _types(clusters: pd.DataFrame) -> dict[str, list[str]]:
    """Return the types of every layer's channels, layers in forward order."""
    return {str(name): list(rows["type"]) for name, rows in clusters.groupby("layer", sort=False)}


def _pairs(
    run: Run, model: ModelWrapper, links: Sequence[Link], types: Mapping[str, list[str]]
) -> list[_Pair]:
    targets = list(dict.fromkeys(link.target for link in links))
    batches = run.splits.batches(run.splits.calibration)
    seen = _Arriving(layers=targets).measure(
        run.network, batches, progress=lambda done, _: run.advance(done, len(batches))
    )
    return [
        _Pair(
            link,
            _influence(
                _section(run.config),
                model.layers[link.source],
                model.layers[link.target],
                seen.statistics[link.target],
            ),
            types[link.source],
            types[link.target],
        )
        for link in links
    ]


def _influence(given: HaloConfig, source: Layer, target: Layer, found: Mapping[Any, Any]) -> Tensor:
    weights, arriving = (found[read] for read in _READS.values())
    rows = weights.rows.unflatten(1, (target.inputs // target.groups, -1))
    spread = arriving.variance().sqrt().cpu() if given.use_activation_weight else None
    return influence_of(rows, spread, source.channels, target.groups)


def _present(types: Sequence[str]) -> list[str]:
    return [name for name in reversed(TYPES) if name in types]


def _members(types: Sequence[str], name: str) -> Tensor:
    return torch.tensor([i for i, mine in enumerate(types) if mine == name])


def _halos(given: HaloConfig, pair: _Pair) -> pd.DataFrame:
    """Return a row a type of the source and a channel of the target."""
    analysis = CrossLayerHaloAnalysis(given.percentile)
    tables = []
    for name in _present(pair.source_types):
        halo, share = analysis.find_halo(pair.influence, _members(pair.source_types, name))
        channels = range(len(share))
        inside = [channel in set(halo.tolist()) for channel in channels]
        columns = {"channel": channels, "share": share.numpy(), "in_halo": inside}
        tables.append(pd.DataFrame({**pair.names, "type": name, **columns}))
    return pd.concat(tables)


def _tested(run: Run, given: HaloConfig, pairs: Sequence[_Pair]) -> pd.DataFrame:
    """Return a row a halo: its share of a type beside those of random sources, and its scores."""
    assert run.config.clustering is not None
    result = LensResult.load(run.folder.path(SCORES))
    named = {key: getattr(run.config.clustering, key) for key in ("redundancy", "synergy")}
    rows = []
    for pair in pairs:
        scores = {key: result[pair.link.target][name] for key, name in named.items()}
        rows += [_row(given, pair, name, scores) for name in _present(pair.source_types)]
    return pd.DataFrame(rows)


def _row(given: HaloConfig, pair: _Pair, name: str, scores: Mapping[str, Tensor]) -> dict[str, Any]:
    analysis, members = CrossLayerHaloAnalysis(given.percentile), _members(pair.source_types, name)
    halo, _ = analysis.find_halo(pair.influence, members)
    tested = analysis.permutation_test(
        pair.influence, members, permutations=given.permutations, seed=given.seed, **scores
    )
    beside = analysis.analyse_halo(halo, scores["redundancy"], scores["synergy"])
    share = tested["influence"]
    return {
        **pair.names,
        "type": name,
        "sources": len(members),
        "channels": beside.halo_size,
        "share": share.observed,
        "share_random": share.null_mean,
        "z": share.z,
        "p_value": share.p_greater,
        "redundancy": beside.redundancy,
        "redundancy_others": beside.other_redundancy,
        "redundancy_p": tested["redundancy"].p_value,
        "synergy": beside.synergy,
        "synergy_others": beside.other_synergy,
        "synergy_p": tested["synergy"].p_value,
    }


def _flow(given: HaloConfig, pair: _Pair) -> pd.DataFrame:
    found = flow_test(
        pair.influence,
        pair.source_types,
        pair.target_types,
        permutations=given.permutations,
        seed=given.seed,
    )
    rows = [
        {
            **pair.names,
            "source_type": one.source_type,
            "target_type": one.target_type,
            "share": one.share.observed,
            "share_random": one.share.null_mean,
            "z": one.share.z,
            "p_value": one.share.p_value,
            "per_unit": one.per_unit,
        }
        for one in found
    ]
    return pd.DataFrame(rows)


def _section(config: Config) -> HaloConfig:
    assert config.halo is not None, "the stage is only made for a config with the section"
    return config.halo
