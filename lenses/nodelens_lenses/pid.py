"""What two channels say about a target: shared, unique to either, and only together, in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens
from nodelens.metrics import targets
from nodelens.metrics.formulas import (
    information_about,
    mean_of_others,
    mean_shared,
    mean_synergy,
    pair_information,
    target_correlation,
)
from nodelens.metrics.synergy import SynergyLens
from nodelens.model import Layer
from nodelens.statistics import CrossMoments, LabelledCoMoments, Read

__all__ = ["InteractionInformation", "PidShared", "PidSynergy", "PidUniqueX", "PidUniqueY"]

_WHERE = (
    r"$T$ is one target dimension, over which the score is averaged (one-hot for classes, those "
    r"that vary); $I$ is $-\tfrac12 \log(1 - R^2)$ with $R^2$ clamped to $(1 - \varepsilon)^2$"
)
_PAPER = (
    "Barrett (2015), Exploration of synergistic and redundant information sharing in static and "
    "dynamical Gaussian systems, Phys. Rev. E 91, 052802"
)


class _Atom(SynergyLens):
    """Correlations count as at most 1 - `eps`.

    `target` takes one of the model's own instead of a batch's: "correct_logit", "logit_margin"
    (correct minus best other) or "logit_pc1", the first principal component of the logits.
    """

    where = _WHERE
    paper = _PAPER

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        target: str = "targets",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers, eps=eps)
        self.target = targets.checked(target)

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"targets": targets.about(self.target, CrossMoments)}

    def _correlations(self, statistics: Mapping[str, Any]) -> Tensor:
        seen = targets.chosen(statistics["targets"], self.target)
        return target_correlation(seen.cross, seen.m2, seen.target_m2.diagonal())

    def _own(self, statistics: Mapping[str, Any]) -> Tensor:
        """Information of every channel about every target dimension, `(channels, dimensions)`."""
        return information_about(self._correlations(statistics), self.eps)


class _OwnAtom(_Atom):
    state = "O(C T)"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        own = self._own(statistics)
        if len(own) < 2:
            return torch.zeros_like(own[:, 0])
        return self._atom(own, mean_shared(own)).mean(1)

    def _atom(self, own: Tensor, shared: Tensor) -> Tensor:
        """The atom from what channels say themselves, and what they share with others on average.

        All are `(channels, dimensions)`.
        """
        raise NotImplementedError


@Lens.register("pid_shared")
class PidShared(_OwnAtom):
    """What a channel and a partner both say about the target, `(channels,)`, in nats.

    The mean over all partners of min(I(T; y_i), I(T; y_j)): the redundant atom of the Gaussian
    decomposition with minimum mutual information. The four atoms `pid_shared`, `pid_unique_x`,
    `pid_unique_y` and `pid_synergy` sum to the mean of I(T; y_i, y_j). No pairs are kept for it.
    """

    importance = -1
    formula = r"\frac{1}{C-1} \sum_{j \ne i} \min\bigl(I(T; y_i), I(T; y_j)\bigr)"
    degenerate = "A constant channel, the only channel of a layer and constant targets score 0."

    def _atom(self, own: Tensor, shared: Tensor) -> Tensor:
        return shared


@Lens.register("pid_unique_x")
class PidUniqueX(_OwnAtom):
    """What a channel says about the target beyond its partner, `(channels,)`, in nats.

    The mean over all partners of I(T; y_i) - min(I(T; y_i), I(T; y_j)). No pairs are kept for it.
    """

    importance = +1
    formula = r"I(T; y_i) - \frac{1}{C-1} \sum_{j \ne i} \min\bigl(I(T; y_i), I(T; y_j)\bigr)"
    degenerate = "A constant channel, the only channel of a layer and constant targets score 0."

    def _atom(self, own: Tensor, shared: Tensor) -> Tensor:
        return (own - shared).clamp_(min=0)


@Lens.register("pid_unique_y")
class PidUniqueY(_OwnAtom):
    """What partners say about the target beyond the channel, `(channels,)`, in nats.

    The mean over all partners of I(T; y_j) - min(I(T; y_i), I(T; y_j)). No pairs are kept for it.
    """

    importance = -1
    formula = r"\frac{1}{C-1} \sum_{j \ne i} I(T; y_j) - \min\bigl(I(T; y_i), I(T; y_j)\bigr)"
    degenerate = (
        "A constant channel scores all that its partners say; the only channel of a layer, and "
        "constant targets, score 0."
    )

    def _atom(self, own: Tensor, shared: Tensor) -> Tensor:
        return (mean_of_others(own) - shared).clamp_(min=0)


class _JointAtom(_Atom):
    state = "C^2 + C T"
    cost = "C^2"
    importance = +1
    by_block = True

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"pairs": targets.about(self.target, LabelledCoMoments), **super().reads(layer)}


@Lens.register("pid_synergy")
class PidSynergy(_JointAtom):
    """What a channel and a partner say about the target only together, `(channels,)`, in nats.

    The mean over all partners of I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)): what is left of the
    joint information when the atoms `pid_shared`, `pid_unique_x` and `pid_unique_y` are taken off.
    The same number as `gaussian_pid_synergy_mmi`.
    """

    formula = r"\frac{1}{C-1} \sum_{j \ne i} I(T; y_i, y_j) - \max\bigl(I(T; y_i), I(T; y_j)\bigr)"
    degenerate = (
        "Constant channels and copies add nothing; the only channel of a layer, and constant "
        "targets, score 0."
    )

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return mean_synergy(statistics["pairs"], self._correlations(statistics), self.eps)


@Lens.register("interaction_information")
class InteractionInformation(_JointAtom):
    """How much two channels say about the target beyond the sum of both, `(channels,)`, in nats.

    The mean over all partners of I(y_i; y_j | T) - I(y_i; y_j), which is I(T; y_i, y_j) - I(T; y_i)
    - I(T; y_j) and the difference of the atoms `pid_synergy` and `pid_shared`: above 0 where
    synergy prevails, below 0 where redundancy does. Of three variables, as it is defined for;
    between the channels of a layer alone it would be over all triples. `.layer` is the mean over
    channels, a number of the layer.
    """

    formula = r"\frac{1}{C-1} \sum_{j \ne i} I(T; y_i, y_j) - I(T; y_i) - I(T; y_j)"
    degenerate = (
        "A constant channel, the only channel of a layer and constant targets score 0; with a copy "
        "a channel shares all it says."
    )
    paper = "McGill (1954), Multivariate information transmission, Psychometrika 19"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, Tensor]:
        target, pairs, own = (
            self._correlations(statistics),
            statistics["pairs"],
            self._own(statistics),
        )
        found = pair_information(pairs, target, self.eps)
        if (channels := len(own)) > 1:
            apart = (own + mean_of_others(own)).mean(1)
            found -= apart[pairs.start : pairs.start + len(found)]
        return {self.name: found, "layer": found.sum() / channels}

    def score_units(self, score: str) -> tuple[str, int]:
        return self.unit, 0 if score.endswith(".layer") else self.importance
