"""Tables of the study: what the core holds, how definitions overlap, what removal costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nodelens.analysis.causal.estimates import Estimate, interval
from nodelens.analysis.supernodes import concentration, outlier_z, overlap, robustness
from projects.supernodes_scar.conditions import halos_and_matches
from projects.supernodes_scar.scores import Scores
from projects.supernodes_scar.study import Study

__all__ = ["Losses", "channel_table", "concentration_table", "overlap_table", "perplexity_table"]

SHARES = (0.01, 0.05, 0.1)
DEFINITIONS = ("loss proxy", "activation power", "activation peak", "Wanda", "FLAP")
_DRAWS = 4000


def concentration_table(study: Study, scores: Scores) -> pd.DataFrame:
    """Return a row a block: what the top shares hold, and how sure the choice of the top 1% is."""
    rows = []
    halos, others = halos_and_matches(scores)
    for layer in study.layers:
        proxy, power = scores["loss proxy"][layer], scores["activation power"][layer]
        held, active = concentration(proxy, SHARES), concentration(power, SHARES)
        each = np.stack([part["loss proxy"][layer].double().numpy() for part in scores.parts])
        again = robustness(each, study.settings.core) if len(each) > 1 else None
        rows.append(
            {
                "layer": layer,
                "units": len(proxy),
                "core": len(scores.core[layer]),
                **{f"loss proxy, top {share:.0%}": held[share] for share in SHARES},
                **{f"activation power, top {share:.0%}": active[share] for share in SHARES},
                "largest unit": float(proxy.max() / proxy.sum()),
                "largest z": float(outlier_z(proxy).max()),
                "halo over matched": float(proxy[halos[layer]].sum() / proxy[others[layer]].sum()),
                "power of halo over matched": float(
                    power[halos[layer]].sum() / power[others[layer]].sum()
                ),
                "drawn anew, Jaccard": again.jaccard if again else np.nan,
            }
        )
    return pd.DataFrame(rows)


def overlap_table(study: Study, scores: Scores) -> pd.DataFrame:
    """Return a row a block and definition: its overlap and rank correlation with the proxy's."""
    rows = []
    for layer in study.layers:
        given = {name: scores[name][layer] for name in DEFINITIONS}
        found = overlap(given, study.settings.core)
        for name in DEFINITIONS[1:]:
            rows.append(
                {
                    "layer": layer,
                    "definition": name,
                    "jaccard": found.jaccard.loc["loss proxy", name],
                    "spearman": found.spearman.loc["loss proxy", name],
                }
            )
    return pd.DataFrame(rows)


def channel_table(study: Study, scores: Scores) -> pd.DataFrame:
    """Return a row a unit with every score."""
    names = [*DEFINITIONS, "redundancy"]
    parts = [
        pd.DataFrame(
            {"layer": layer, "unit": range(len(scores["loss proxy"][layer]))}
            | {name: scores[name][layer].double().numpy() for name in names}
        )
        for layer in study.layers
    ]
    return pd.concat(parts, ignore_index=True)


class Losses:
    """Losses by condition, `(seeds, blocks)`, and intervals from blocks drawn anew.

    Each draw takes the same blocks for all conditions, so that what makes a block hard does not
    count in a comparison; seeds are drawn anew as well.
    """

    def __init__(self, found: pd.DataFrame, draws: int = _DRAWS) -> None:
        self.table = found
        groups = found.groupby("name", sort=False)["losses"]
        self.losses = {str(name): np.array(list(rows)) for name, rows in groups}
        count = len(found["losses"].iloc[0])
        random = np.random.default_rng(0)
        drawn = random.multinomial(count, np.full(count, 1 / count), draws)
        self._blocks = np.concatenate([np.ones((1, count)), drawn]) / count
        self._seed = 1

    def perplexity(self, name: str) -> Estimate:
        """Return the perplexity under a condition, seeds as their geometric mean."""
        means = np.exp(self._means(name))
        return interval(means[0], means[1:])

    def ratio(self, name: str, other: str) -> Estimate:
        """Return the perplexity under one condition over that under another."""
        ratios = np.exp(self._means(name) - self._means(other))
        return interval(ratios[0], ratios[1:])

    def rise(self, name: str, other: str) -> Estimate:
        """Return the loss that one condition adds to the dense model's over what another adds."""
        dense = self._means("dense")
        times = (self._means(name) - dense) / (self._means(other) - dense)
        return interval(times[0], times[1:])

    def seeds(self, name: str) -> tuple[float, float]:
        """Return the lowest and the highest perplexity of the seeds of a condition."""
        each = np.exp(self.losses[name].mean(1))
        return float(each.min()), float(each.max())

    def _means(self, name: str) -> NDArray[np.float64]:
        losses = self.losses[name]
        count = len(losses)
        random = np.random.default_rng(self._seed)
        seeds = random.multinomial(count, np.full(count, 1 / count), len(self._blocks)) / count
        seeds[0] = 1 / count
        means: NDArray[np.float64] = ((seeds @ losses) * self._blocks).sum(1)
        return means


def perplexity_table(losses: Losses) -> pd.DataFrame:
    """Return a row a condition: perplexity, its interval, and against the dense model's."""
    rows = []
    for name, given in losses.table.groupby("name", sort=False):
        found, ratio = losses.perplexity(str(name)), losses.ratio(str(name), "dense")
        least, most = losses.seeds(str(name))
        rows.append(
            {
                "condition": name,
                "group": given["group"].iloc[0],
                "seeds": len(given),
                "silenced": given["silenced"].iloc[0],
                "perplexity": found.value,
                "low": found.low,
                "high": found.high,
                "lowest seed": least,
                "highest seed": most,
                "times dense": ratio.value,
                "times dense, low": ratio.low,
                "times dense, high": ratio.high,
            }
        )
    return pd.DataFrame(rows)
