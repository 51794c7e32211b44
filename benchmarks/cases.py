"""What is timed on a workload, and what each case is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.baselines import (
    hooked_gradients,
    hooked_redundancy,
    hooked_statistics,
    hooked_synergy,
    plain,
)
from benchmarks.harness import Bound
from benchmarks.workloads import Workload, loss_of
from nodelens import CompositeLens, Lens

__all__ = ["AGAINST", "MARKS", "bounds_of", "cases_of"]

O_OF_C = (
    "activation_mean",
    "activation_variance",
    "activation_l2_norm",
    "activation_max",
    "activation_sparsity",
    "activation_kurtosis",
    "activation_outlier_index",
    "rayleigh_quotient",
)

AGAINST = {
    "hooks: O(C) statistics": "plain forward",
    "lenses: rayleigh_quotient": "plain forward",
    "lenses: all O(C)": "plain forward",
    "hooks: co-moments": "plain forward",
    "lenses: average_redundancy": "hooks: co-moments",
    "hooks: synergy": "plain forward",
    "lenses: synergy": "hooks: synergy",
    "lenses: quotient, redundancy, norm, synergy": "plain forward",
    "hooks: gradient": "forward + input gradients",
    "lenses: gradient": "forward + input gradients",
    "forward + input gradients": "plain forward",
    "lenses: everything": "forward + input gradients",
}

MARKS = {
    ("mlp", "lenses: all O(C)"): 1.6,
    ("mlp", "lenses: quotient, redundancy, norm, synergy"): 2.5,
    ("cnn", "lenses: all O(C)"): 1.25,
    ("smollm2", "lenses: all O(C)"): 1.08,
    ("smollm2", "lenses: gradient"): 1.1,
    ("smollm2", "lenses: average_redundancy"): 1.05,
}
"""What is aimed at, on two cores."""


def lenses_of(work: Workload) -> dict[str, Lens]:
    """Return the lenses that are timed on a workload, by the name of their case."""
    layers = work.layers
    oc, gradient = _made(O_OF_C, layers), _made(work.gradient_lenses, layers)
    redundancy = Lens.from_name("average_redundancy", layers=layers, site=work.site)
    norm = Lens.from_name("activation_l2_norm", layers=layers)
    synergy = [Lens.from_name("gaussian_pid_synergy_mmi", layers=layers)] if work.labelled else []
    four = CompositeLens([oc[-1], redundancy, norm, *synergy])
    return {
        "lenses: rayleigh_quotient": oc[-1],
        "lenses: all O(C)": CompositeLens(oc),
        "lenses: average_redundancy": redundancy,
        **({"lenses: synergy": synergy[0]} if synergy else {}),
        **({"lenses: quotient, redundancy, norm, synergy": four} if synergy else {}),
        "lenses: gradient": CompositeLens(gradient),
        "lenses: everything": CompositeLens([*oc, redundancy, *synergy, *gradient]),
    }


def cases_of(work: Workload) -> dict[str, Callable[[], object]]:
    """Return the cases of a workload by name, in the order they are run."""
    module, layers, batches = work.model.module, work.layers, work.plain_batches()
    lenses = lenses_of(work)
    everything = lenses["lenses: everything"]
    measured = everything.aggregator()
    for statistics in everything.analyse_batched(work.model, work.batches):
        measured.update(statistics)

    def run(lens: Lens) -> Callable[[], object]:
        def measure() -> None:
            aggregator = lens.aggregator()
            for statistics in lens.analyse_batched(work.model, work.batches):
                aggregator.update(statistics)

        return measure

    def gradients(sums: bool) -> Callable[[], object]:
        return lambda: hooked_gradients(module, layers, batches, loss_of, work.site, sums)

    by_hand = {
        "plain forward": lambda: plain(module, batches),
        "hooks: O(C) statistics": lambda: hooked_statistics(module, layers, batches),
        "hooks: co-moments": lambda: hooked_redundancy(module, layers, batches, work.site),
        "hooks: synergy": lambda: hooked_synergy(module, layers, batches),
        "forward + input gradients": gradients(False),
        "hooks: gradient": gradients(True),
    }
    if not work.labelled:
        del by_hand["hooks: synergy"]
    return {
        **by_hand,
        **{case: run(lens) for case, lens in lenses.items()},
        "scoring everything, once a run": measured.result,
    }


def bounds_of(work: Workload) -> dict[str, Bound]:
    """Return what bounds every lens's case: the pass it needs, and its statistics' arithmetic."""
    passes = {"lenses: gradient", "lenses: everything"}
    return {
        case: Bound(
            "forward + input gradients" if case in passes else "plain forward",
            (lens.plan(work.model, work.batches[0]).passes[0].batch_flops or 0) * len(work.batches),
        )
        for case, lens in lenses_of(work).items()
    }


def _made(names: Sequence[str], layers: Sequence[str]) -> list[Lens]:
    return [Lens.from_name(name, layers=layers) for name in names]
