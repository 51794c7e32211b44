"""Paired tests between conditions over runs: t and signed ranks, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

__all__ = ["FEWEST", "holm", "interval", "paired_tests"]

FEWEST = {"t": 3, "wilcoxon": 6}
"""Runs below which a test is not made: two-sided, the signed ranks of 5 pairs give no p below 1/16.

The t-test of two pairs has one degree of freedom.
"""
COLUMNS = (
    "measure",
    "condition",
    "other",
    "runs",
    "difference",
    "low",
    "high",
    *(f"{test}_{kind}" for test in FEWEST for kind in ("p", "holm")),
    "note",
)


def paired_tests(measure: str, values: Mapping[str, Mapping[Any, float]]) -> pd.DataFrame:
    """Return a row for each pair of conditions, tested over what they have in common.

    `values` are by condition and pair (a run, or a seed). `difference` is the mean of the
    condition less the other, with Student's 95% interval; `t_holm` and `wilcoxon_holm` are p-values
    corrected (Holm, 1979) for all pairs of the table that could be tested. `note` says what could
    not and why, and how many values have no pair.
    """
    import pandas as pd

    rows = []
    for one, other in combinations(values, 2):
        shared = [pair for pair in values[one] if pair in values[other]]
        gaps = np.array([values[one][pair] - values[other][pair] for pair in shared])
        found = _tested(gaps)
        if alone := len(values[one].keys() ^ values[other].keys()):
            found["note"] = "; ".join(filter(None, [found["note"], f"{alone} without a pair"]))
        rows.append({"measure": measure, "condition": one, "other": other, **found})
    for test in FEWEST:
        corrected = holm([row[f"{test}_p"] for row in rows])
        for row, p_value in zip(rows, corrected, strict=True):
            row[f"{test}_holm"] = p_value
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979); NaN stays, and does not count.

    >>> holm([0.01, float("nan"), 0.04, 0.03])
    [0.03, nan, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=float)
    order = [i for i in np.argsort(given) if not np.isnan(given[i])]
    found = np.full(len(given), np.nan)
    weighed = [(len(order) - rank) * given[i] for rank, i in enumerate(order)]
    found[order] = np.minimum(np.maximum.accumulate(weighed), 1.0) if order else []
    return [float(p) for p in found]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and Student's 95% interval of independent values; NaN for one alone.

    >>> tuple(round(bound, 3) for bound in interval([1.0, 2.0, 3.0]))
    (2.0, -0.484, 4.484)
    """
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    reach = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - reach, mean + reach


def _tested(gaps: Array) -> dict[str, Any]:
    """Return what the differences of pairs say: mean, interval, p-values, what is missing."""
    if not np.isfinite(gaps).all() or not len(gaps):
        none = dict.fromkeys(("difference", "low", "high", *(f"{t}_p" for t in FEWEST)), np.nan)
        why = "a pair is not a number" if len(gaps) else "no pair in common"
        return {"runs": len(gaps), **none, "note": f"{why}, so nothing is tested"}
    mean, low, high = interval(gaps.tolist())
    usable = {"t": len(gaps), "wilcoxon": int(np.count_nonzero(gaps))}
    few = [f"{test} needs {n} runs" for test, n in FEWEST.items() if usable[test] < n]
    if usable["wilcoxon"] < len(gaps) and few:
        few[-1] += " that differ"
    # The rounding of a mean is not a spread.
    alike = float(np.ptp(gaps)) <= 1e-12 * max(1.0, float(np.abs(gaps).max()))
    if alike and len(gaps) > 1:
        few = ["every pair differs by the same, so nothing is tested"]
    p_values = {
        f"{test}_p": float("nan") if alike or usable[test] < n else _p_value(test, gaps)
        for test, n in FEWEST.items()
    }
    told = {"runs": len(gaps), "difference": mean, "low": low, "high": high}
    return {**told, **p_values, "note": "; ".join(few)}


def _p_value(test: str, gaps: Array) -> float:
    from scipy.stats import ttest_1samp, wilcoxon

    made = ttest_1samp(gaps, 0.0) if test == "t" else wilcoxon(gaps)
    return float(made.pvalue)
