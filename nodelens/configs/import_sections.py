"""Sections of the unified dialect as ours: supernodes, clusters, halos, cascade, judging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NOT_ENABLED", "is_enabled", "section_key", "split_tasks"]

NOT_ENABLED = "not enabled"
_FEATURES = {"rayleigh_quotient": "rq", "redundancy": "red", "synergy": "syn"}
_PLOTS = {"visualization.format": "figures.formats"}
_LANGUAGE = {
    "supernode.enabled": "supernode",
    "supernode.score_metric": "supernode.score",
    "supernode.core_fraction": "supernode.core",
    "supernode.halo_fraction": "supernode.halo",
    "evaluation.enabled": "evaluation",
    "evaluation.loss": "evaluation",
    "evaluation.perplexity_enabled": "evaluation",
    "evaluation.evaluation_num_samples": "evaluation.task_limit",
}
_VISION = {
    "evaluation.enabled": "evaluation",
    "evaluation.accuracy": "evaluation",
    "evaluation.top1_accuracy": "evaluation",
    "evaluation.top5_accuracy": "evaluation",
    "evaluation.loss": "evaluation",
}
_CLUSTERS = {
    "clustering.enabled": "clustering",
    "clustering.n_clusters": "clustering.n_clusters",
    "clustering.features": "clustering.features",
    "clustering.n_bootstrap": "clustering.bootstraps",
    "halo_analysis.enabled": "halo",
    "halo_analysis.percentile": "halo.percentile",
    "halo_analysis.use_activation_weight": "halo.use_activation_weight",
    "halo_analysis.permutation_baseline.n_permutations": "halo.permutations",
    "cascade_analysis.enabled": "causal",
    "cascade_analysis.n_remove_per_group": "causal.counts",
}
_EQUAL = {
    "llm_alignment": _PLOTS | _LANGUAGE,
    "general_alignment": _PLOTS | _VISION,
    "cluster_analysis": _PLOTS | _VISION | _CLUSTERS,
}


def section_key(key: str, value: Any, family: str) -> tuple[str, Any] | None:
    """Return what `key` is called in ours, and its value; None for no equal.

    A name without a dot is that of a section which is there, its value a flag.
    """
    ours = _EQUAL[family].get(key)
    if ours in ("figures.formats", "causal.counts"):
        value = [value]
    elif ours == "clustering.features":
        value = _features(value)
    wanted = value is not None and not ("." not in str(ours) and value is not True)
    return (ours, value) if ours is not None and wanted else None


def is_enabled(data: Mapping[str, Any], key: str) -> bool:
    """Return whether no section that `key` is in says `enabled: false`."""
    section: Any = data
    for name in key.split(".")[:-1]:
        section = section.get(name) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and section.get("enabled", True) is False:
            return False
    return True


def split_tasks(tasks: Any) -> tuple[list[str], list[Any]]:
    """Return the names of the tasks that are asked without examples, and the other entries."""
    entries = [{"name": t} if isinstance(t, str) else t for t in tasks]
    plain = [t for t in entries if isinstance(t, Mapping) and not t.get("num_fewshot")]
    return [str(t["name"]) for t in plain], [t for t in entries if t not in plain]


def _features(names: Any) -> str | None:
    """Return three metrics as `all`, two or one as their short names; None for any other."""
    short = [_FEATURES.get(name) for name in names] if isinstance(names, list) else [None]
    if None in short or not short:
        return None
    found = [name for name in _FEATURES.values() if name in short]
    if len(found) == len(_FEATURES):
        return "all"
    return "_".join(found) if len(found) > 1 else f"{found[0]}_only"
