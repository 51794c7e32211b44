"""What is timed on a workload, and what each case is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.baselines import hooked_gradients, hooked_redundancy, hooked_statistics, plain
from benchmarks.workloads import Workload, loss_of
from nodelens import CompositeLens, Lens

__all__ = ["AGAINST", "MARKS", "cases_of"]

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
    "lenses: synergy": "plain forward",
    "lenses: gradient": "forward + input gradients",
    "forward + input gradients": "plain forward",
    "lenses: everything": "forward + input gradients",
}

MARKS = {
    ("mlp", "lenses: all O(C)"): 1.6,
    ("cnn", "lenses: all O(C)"): 1.25,
    ("smollm2", "lenses: all O(C)"): 1.08,
    ("smollm2", "lenses: gradient"): 1.1,
    ("smollm2", "lenses: average_redundancy"): 1.05,
}
"""What is aimed at, on two cores."""


def cases_of(work: Workload) -> dict[str, Callable[[], object]]:
    """Return the cases of a workload by name, in the order they are run."""
    module, layers, batches = work.model.module, work.layers, work.plain_batches()
    oc = _made(O_OF_C, layers)
    redundancy = Lens.from_name("average_redundancy", layers=layers, site=work.site)
    gradient = _made(work.gradient_lenses, layers)
    synergy = [Lens.from_name("gaussian_pid_synergy_mmi", layers=layers)] if work.labelled else []
    everything = CompositeLens([*oc, redundancy, *synergy, *gradient])
    measured = everything.aggregator()
    for statistics in everything.analyse_batched(work.model, work.batches):
        measured.update(statistics)

    def run(lens: Lens) -> Callable[[], object]:
        def measure() -> None:
            aggregator = lens.aggregator()
            for statistics in lens.analyse_batched(work.model, work.batches):
                aggregator.update(statistics)

        return measure

    return {
        "plain forward": lambda: plain(module, batches),
        "hooks: O(C) statistics": lambda: hooked_statistics(module, layers, batches),
        "lenses: rayleigh_quotient": run(oc[-1]),
        "lenses: all O(C)": run(CompositeLens(oc)),
        "hooks: co-moments": lambda: hooked_redundancy(module, layers, batches, work.site),
        "lenses: average_redundancy": run(redundancy),
        **({"lenses: synergy": run(synergy[0])} if synergy else {}),
        "forward + input gradients": lambda: hooked_gradients(module, layers, batches, loss_of),
        "lenses: gradient": run(CompositeLens(gradient)),
        "lenses: everything": run(everything),
        "scoring everything, once a run": measured.result,
    }


def _made(names: Sequence[str], layers: Sequence[str]) -> list[Lens]:
    return [Lens.from_name(name, layers=layers) for name in names]
