"""Does a score find the channels whose loss is felt?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, fraction, seeded
from nodelens.analysis.causal.calls import checked
from nodelens.analysis.causal.check import CausalCheck, CausalResult, Scores, score_arrays
from nodelens.analysis.causal.estimates import interval, rank_correlations, resamples_of
from nodelens.analysis.causal.estimates import top_recalls as recalls
from nodelens.analysis.causal.lesions import Damage, Lesion, lesion
from nodelens.analysis.causal.sampling import stratified
from nodelens.errors import whole

__all__ = ["AblationValidation", "ablation_validation", "sampled_damage", "top_of"]


class AblationValidation(CausalCheck):
    """Single channels are silenced, drawn evenly over the quantiles of a score.

    `importance` is -1 where a high score argues against a channel. All channels drawn count, those
    that help when silenced too. `top` is the fraction of a layer's drawn channels that retrieval
    asks for.
    """

    name = "ablation_validation"

    def __init__(
        self,
        scores: Scores,
        *,
        score: str | None = None,
        importance: int = 1,
        per_layer: int = 32,
        strata: int = 8,
        top: float = 0.1,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.scores = score_arrays(scores, score)
        self.widths = {layer: len(values) for layer, values in self.scores.items()}
        self.sign = -1 if importance < 0 else 1
        self.top, self.resamples, self.seed = top, resamples, seed
        fraction("top", top)
        whole("resamples", resamples, 0)
        generator = seeded(seed)
        self.drawn = {
            layer: stratified(values, per_layer, strata, generator)
            for layer, values in self.scores.items()
        }
        self.lesions: list[Lesion] = [
            lesion({layer: [c]}) for layer, drawn in self.drawn.items() for c in drawn
        ]

    def conclude(self, damage: Damage) -> CausalResult:
        """Return `spearman` and `top_recall`, means over layers, and both of every layer."""
        generator = np.random.default_rng(self.seed + 1)
        rho, recall = [], []
        estimates = {}
        for layer, (channels, cost) in sampled_damage(damage, self.drawn).items():
            picks = resamples_of(len(cost), self.resamples, generator)
            mine = self.sign * self.scores[layer][channels]
            rho.append(rank_correlations(mine[picks], cost[picks]))
            recall.append(recalls(mine[picks], cost[picks], top_of(len(cost), self.top)))
            estimates[f"spearman.{layer}"] = interval(rho[-1][0], rho[-1][1:])
        means = {"spearman": np.mean(rho, 0), "top_recall": np.mean(recall, 0)}
        together = {name: interval(draws[0], draws[1:]) for name, draws in means.items()}
        return self.result({**together, **estimates}, self._rows(damage))

    def _rows(self, damage: Damage) -> list[dict[str, Any]]:
        before = damage.accuracy(())
        rows = []
        for layer, drawn in self.drawn.items():
            for channel, stratum in drawn.items():
                which = lesion({layer: [channel]})
                after = damage.accuracy(which)
                rows.append(
                    {
                        "layer": layer,
                        "channel": channel,
                        "stratum": stratum,
                        "score": self.scores[layer][channel],
                        "loss_change": damage.change(which),
                        "accuracy_change": None
                        if before is None or after is None
                        else after - before,
                    }
                )
        return rows


def sampled_damage(
    damage: Damage, drawn: dict[str, dict[int, int]]
) -> dict[str, tuple[list[int], Array]]:
    """Return the channels drawn in each layer and the loss change of each, `(drawn,)`."""
    return {
        layer: (list(channels), damage.changes([lesion({layer: [c]}) for c in channels]))
        for layer, channels in drawn.items()
    }


def top_of(n: int, top: float) -> int:
    """Return how many channels of n the top fraction is, at least one."""
    return max(1, round(n * fraction("top", top)))


def ablation_validation(
    model: Any, batches: Iterable[Any], scores: Scores, **options: Any
) -> CausalResult:
    """Return how well a score ranks channels by what silencing each of them costs.

    `options` are those of `AblationValidation` and of `CausalCheck.run`.
    """
    return checked(AblationValidation, model, batches, (scores,), options)
