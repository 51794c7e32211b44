"""Record what hoi and infomeasure give on a small sample: `python tests/lenses/published/make.py`.

hoi 0.0.7 needs jax, infomeasure 0.6.3 needs numba, both large, so neither is a dependency. Needed
are `pip install hoi==0.0.7 infomeasure==0.6.3`; values are in nats, in `values.json` beside this.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from itertools import combinations
from math import log
from pathlib import Path
from typing import Any

import numpy as np

VALUES = Path(__file__).with_name("values.json")
SEED, ROWS, CHANNELS = 7, 160, 5


def sample() -> tuple[Any, Any, Any]:
    """Return correlated channels `(rows, channels)`, a target and a third variable `(rows,)`."""
    rng = np.random.default_rng(SEED)
    cause = rng.normal(size=(ROWS, 2))
    rows = rng.normal(size=(ROWS, CHANNELS)) + cause @ rng.normal(size=(2, CHANNELS))
    target = rows[:, 0] - 0.5 * rows[:, 1] + 0.3 * rows[:, 2] + rng.normal(size=ROWS)
    return rows, target, cause[:, 0] + 0.5 * target


def counts() -> tuple[Any, Any]:
    """Return channels of up to four values, and classes: two tell of them, one does not."""
    rng = np.random.default_rng(SEED)
    classes, noise = rng.integers(0, 3, ROWS), rng.integers(0, 4, (ROWS, 2))
    flipped = np.where(rng.random(ROWS) < 0.2, noise[:, 0], classes)
    return np.stack(
        [classes + 1 - (classes > 1) * noise[:, 1] % 2, flipped, noise[:, 1]], 1
    ), classes


def main() -> None:
    """Write the values."""
    made = {"versions": {name: version(name) for name in ("hoi", "infomeasure")}, "seed": SEED}
    VALUES.write_text(json.dumps(made | _gaussian() | _counted(), indent=1) + "\n")


def _gaussian() -> dict[str, Any]:
    os.environ["JAX_ENABLE_X64"] = "1"
    from hoi import metrics
    from hoi.core import get_entropy

    # hoi's method "gauss" takes products about 0: it is given centred values.
    rows, target, third = (values - values.mean(0) for values in sample())
    entropy = get_entropy("gauss")

    def nats(kind: Any, chosen: list[tuple[int, ...]], *beside: Any) -> list[float]:
        # Groups of one size at a time: hoi answers in the order of sizes.
        size = len(chosen[0])
        model = kind(rows, *beside, multiplets=chosen, verbose=False)
        found = model.fit(minsize=size, maxsize=size, method="gauss")
        return [float(one) * log(2) for one in found[:, 0]]

    def layer(kind: Any) -> list[float]:
        return nats(kind, [whole]) + nats(kind, without)

    def joint(*parts: Any) -> float:
        return float(entropy(np.stack(parts))) * log(2)

    whole = tuple(range(CHANNELS))
    without = [tuple(c for c in whole if c != out) for out in whole]
    pairs = list(combinations(whole, 2))
    given = [
        joint(x, third) + joint(target, third) - joint(x, target, third) - joint(third)
        for x in rows.T
    ]
    return {
        "pairs": pairs,
        "total_correlation": layer(metrics.TC),
        "dual_total_correlation": layer(metrics.DTC),
        "o_information": layer(metrics.Oinfo),
        "information_of_pairs": nats(metrics.TC, pairs),
        "redundancy_of_pairs": nats(metrics.RedundancyMMI, pairs, target),
        "synergy_of_pairs": nats(metrics.SynergyMMI, pairs, target),
        "gradient_o_information_of_pairs": nats(metrics.GradientOinfo, pairs, target),
        "information_with_target": [joint(x) + joint(target) - joint(x, target) for x in rows.T],
        "information_given_third": given,
    }


def _counted() -> dict[str, Any]:
    import infomeasure

    rows, classes = counts()

    def nats(approach: str) -> list[float]:
        made = (
            infomeasure.mutual_information(x, classes, approach=approach, base="e") for x in rows.T
        )
        return [float(one) for one in made]

    return {"plain_of_counts": nats("discrete"), "corrected_of_counts": nats("miller_madow")}


if __name__ == "__main__":
    main()
