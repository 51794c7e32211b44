"""Does a score find the channels whose loss is felt? Causal checks as lenses over a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nodelens import Lens, ModelWrapper
from nodelens.analysis.causal import (
    AblationValidation,
    Cascade,
    CausalCheck,
    CausalLens,
    CausalResult,
    HaloAblation,
    HitRateSweep,
    LeaderboardCheck,
    PairLesion,
)

__all__ = [
    "AblationValidationLens",
    "CascadeLens",
    "HaloAblationLens",
    "HitRateSweepLens",
    "LensLeaderboard",
    "PairLesionLens",
]

_DIFFERENCES = {
    "split_invariance": "a small difference of two float32 losses keeps the rounding of both, "
    "which goes with the split; in float64 it is checked"
}
_JUMPS = {
    **_DIFFERENCES,
    "half_precision": "ranks jump where two channels cost nearly the same, as rounding makes them",
}


def _example_layer(model: ModelWrapper) -> tuple[str, int]:
    """A layer in the middle of the pass with channels enough to try a check on."""
    route = model.known_route()
    names = [n for n in model.layers if route is None or route.reached(n)]
    wide = [n for n in names if model.layers[n].channels >= 6] or names
    return wide[0], model.layers[wide[0]].channels


@Lens.register("ablation_validation")
class AblationValidationLens(CausalLens):
    """How well a score ranks channels by what silencing each of them costs, against all drawn.

    `scores` is `{layer: (channels,)}`, such as a result's `scores(name)`; `importance` is -1 where
    a high score argues against a channel. `per_layer` channels are drawn evenly over `strata`
    quantiles of the score, and all of them count, those that help when silenced too. `top` is the
    fraction that retrieval asks for; `resamples` and `seed` are of the bootstrap over channels.
    `site` and `loss` are as for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `spearman` and `top_recall`,
    means over layers, and `spearman.LAYER`. A batch takes one pass a channel drawn, and one.
    """

    exempt = _JUMPS
    formula = r"\rho = \operatorname{Spearman}_i\bigl(s_i,\; L(f_{-i}) - L(f)\bigr)"
    where = "$f_{-i}$ is the model with channel i silenced, $s_i$ the score, $L$ the mean loss"

    def __init__(
        self,
        scores: Mapping[str, Any],
        *,
        importance: int = 1,
        per_layer: int = 32,
        strata: int = 8,
        top: float = 0.1,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        # Names of options that a lens has other things under: `params` gives them back.
        self.ranked_by, self.importance_of_scores = scores, importance
        self.per_layer, self.strata, self.top = per_layer, strata, top
        self.resamples, self.seed, self.site, self.loss = resamples, seed, site, loss
        self.check()

    @property
    def params(self) -> dict[str, Any]:
        return {
            **super().params,
            "scores": self.ranked_by,
            "importance": self.importance_of_scores,
        }

    def check(self) -> CausalCheck:
        return AblationValidation(
            self.ranked_by,
            importance=self.importance_of_scores,
            per_layer=self.per_layer,
            strata=self.strata,
            top=self.top,
            resamples=self.resamples,
            seed=self.seed,
        )

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens on a layer whose channels are scored by their number."""
        layer, width = _example_layer(model)
        return cls({layer: list(range(width))}, per_layer=3, strata=2, resamples=20), {}


@Lens.register("lens_leaderboard")
class LensLeaderboard(CausalLens):
    """How well each of several scores foretells what silencing a channel costs, measured once.

    `board` is `{name: {layer: (channels,)}}`, high for important. `per_layer` channels are drawn
    evenly over `strata` quantiles of the mean rank that the board gives them; `top` is the fraction
    of the most damaging that a score is to find; a random score is added as control. `resamples`
    and `seed` are of the bootstrap over channels; `site` and `loss` are as for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `spearman.NAME`, a mean over
    layers. `nodelens.analysis.causal.lens_leaderboard` measures all lenses that fit, curves and
    costs as well, and makes a table and a page of them.
    """

    exempt = _JUMPS
    formula = AblationValidationLens.formula
    where = AblationValidationLens.where

    def __init__(
        self,
        board: Mapping[str, Mapping[str, Any]],
        *,
        per_layer: int = 32,
        strata: int = 8,
        top: float = 0.1,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        self.board, self.per_layer, self.strata, self.top = board, per_layer, strata, top
        self.resamples, self.seed, self.site, self.loss = resamples, seed, site, loss
        self.check()

    def check(self) -> CausalCheck:
        return LeaderboardCheck(
            self.board,
            per_layer=self.per_layer,
            strata=self.strata,
            top=self.top,
            fractions=(),
            resamples=self.resamples,
            seed=self.seed,
        )

    def concluded(self, statistics: Any) -> CausalResult:
        found = super().concluded(statistics)
        named = {f"spearman.{name}": e for name, e in found.estimates.items()}
        return CausalResult(found.name, dict(sorted(named.items())), found.rows, found.evaluations)

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with two scores of one layer: channel numbers, up and down."""
        layer, width = _example_layer(model)
        board = {"up": {layer: list(range(width))}, "down": {layer: list(range(width))[::-1]}}
        return cls(board, per_layer=3, strata=2, resamples=20), {}


@Lens.register("hit_rate_sweep")
class HitRateSweepLens(CausalLens):
    """The loss against the fraction of a core that is among the channels removed, at equal budget.

    `core` and `others` are `{layer: channels}`. Each layer loses as many channels as it has in the
    core at every one of `fractions`: that fraction of the core, the rest from `others`, drawn
    `draws` times. `resamples` and `seed` are of the bootstrap over draws; `site` and `loss` are as
    for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `slope`, the loss from none
    to all of the core, and `loss_change.FRACTION`.
    """

    formula = (
        r"\Delta L(\phi) = \bigl\langle L(f_{-C_\phi \cup R_\phi}) \bigr\rangle - L(f), \qquad "
        r"|C_\phi| = \phi |C|, \quad |C_\phi| + |R_\phi| = |C|"
    )
    exempt = _DIFFERENCES
    where = "$C$ is the core, $C_\\phi$ drawn from it and $R_\\phi$ from the others"

    def __init__(
        self,
        core: Mapping[str, Sequence[int]],
        others: Mapping[str, Sequence[int]],
        *,
        fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        draws: int = 5,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        self.core, self.others, self.fractions, self.draws = core, others, fractions, draws
        self.resamples, self.seed, self.site, self.loss = resamples, seed, site, loss
        self.check()

    def check(self) -> CausalCheck:
        return HitRateSweep(
            self.core,
            self.others,
            fractions=self.fractions,
            draws=self.draws,
            resamples=self.resamples,
            seed=self.seed,
        )

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with a core of two channels."""
        layer, width = _example_layer(model)
        core, others = {layer: [0, 1]}, {layer: list(range(2, width))}
        return cls(core, others, fractions=[0, 1], draws=1, resamples=20), {}


@Lens.register("halo_ablation")
class HaloAblationLens(CausalLens):
    """What a halo costs against matched channels that are none, with and without its core.

    `halo`, `core` and `others` are `{layer: channels}`. Controls are drawn `draws` times with
    `seed` out of `others`, of the same layers, near in `scores`, `{layer: (channels,)}`, where they
    are given; `site` and `loss` are as for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high` over controls: `halo`, `core`
    and `control`, the loss changes; `gap`, halo above controls; `interaction`, halo and core
    together above their sum, and `interaction_gap`, that above the controls'; `p` and
    `interaction_p`, (r + 1) / (n + 1).
    """

    formula = (
        r"\text{gap} = \Delta L(H) - \bigl\langle \Delta L(R) \bigr\rangle, \qquad "
        r"\text{interaction} = \Delta L(H \cup C) - \Delta L(H) - \Delta L(C)"
    )
    exempt = _DIFFERENCES
    where = "$H$ is the halo, $C$ the core, $R$ a matched control"

    def __init__(
        self,
        halo: Mapping[str, Sequence[int]],
        core: Mapping[str, Sequence[int]],
        others: Mapping[str, Sequence[int]],
        *,
        scores: Mapping[str, Any] | None = None,
        draws: int = 20,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        self.halo, self.core, self.others = halo, core, others
        # `Lens.scores` is a method: the name of the option is the one in `params`.
        self.matched_by, self.draws, self.seed = scores, draws, seed
        self.site, self.loss = site, loss
        self.check()

    @property
    def params(self) -> dict[str, Any]:
        return {**super().params, "scores": self.matched_by}

    def check(self) -> CausalCheck:
        return HaloAblation(
            self.halo,
            self.core,
            self.others,
            scores=self.matched_by,
            draws=self.draws,
            seed=self.seed,
        )

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with a halo and a core of one channel each."""
        layer, width = _example_layer(model)
        return cls({layer: [0]}, {layer: [1]}, {layer: list(range(2, width))}, draws=1), {}


@Lens.register("cascade")
class CascadeLens(CausalLens):
    """What is lost as channels of each type go, against as many of any type.

    `types` is `{type: {layer: channels}}`. For each n in `counts`, n channels are drawn out of a
    type `draws` times; a type with fewer is left out at n. `resamples` and `seed` are of the
    bootstrap over draws; `site` and `loss` are as for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `loss_change.TYPE.N` and
    `excess.TYPE.N`, that above n channels of all types together.
    """

    formula = r"\Delta L_t(n) = \bigl\langle L(f_{-S}) \bigr\rangle_{S \subset t,\, |S| = n} - L(f)"
    exempt = _DIFFERENCES
    where = "$t$ is the set of the channels of a type"

    def __init__(
        self,
        types: Mapping[str, Mapping[str, Sequence[int]]],
        *,
        counts: Sequence[int] = (1, 2, 4, 8),
        draws: int = 5,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        self.types, self.counts, self.draws = types, counts, draws
        self.resamples, self.seed, self.site, self.loss = resamples, seed, site, loss
        self.check()

    def check(self) -> CausalCheck:
        return Cascade(
            self.types,
            counts=self.counts,
            draws=self.draws,
            resamples=self.resamples,
            seed=self.seed,
        )

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with two types of two channels."""
        layer, _ = _example_layer(model)
        types = {"first": {layer: [0, 1]}, "second": {layer: [2, 3]}}
        return cls(types, counts=[1], draws=1, resamples=20), {}


@Lens.register("pair_lesion")
class PairLesionLens(CausalLens):
    """Whether the pairs of highest synergy need each other, against matched pairs.

    `synergy` is `{layer: (channels, channels)}`. The `pairs` highest are silenced one by one and
    together, and so is for each a control that shares its first channel, near to the second in
    `scores`, `{layer: (channels,)}`, where they are given. `resamples` and `seed` are of the
    bootstrap over pairs; `site` and `loss` are as for `ablation`.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `joint`, `excess` (below 0
    where two need each other, above 0 where either can stand in) and `interaction`, its size; each
    with `_gap` above the controls; and `p`.
    """

    formula = r"\text{excess}_{ij} = \Delta L(\{i, j\}) - \Delta L(\{i\}) - \Delta L(\{j\})"
    where = "$\\Delta L(S)$ is the rise in loss with the channels $S$ silenced"
    exempt = _JUMPS

    def __init__(
        self,
        synergy: Mapping[str, Any],
        *,
        pairs: int = 16,
        scores: Mapping[str, Any] | None = None,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        loss: Any = None,
    ) -> None:
        super().__init__()
        self.synergy, self.pairs, self.matched_by = synergy, pairs, scores
        self.resamples, self.seed, self.site, self.loss = resamples, seed, site, loss
        self.check()

    @property
    def params(self) -> dict[str, Any]:
        return {**super().params, "scores": self.matched_by}

    def check(self) -> CausalCheck:
        return PairLesion(
            self.synergy,
            pairs=self.pairs,
            scores=self.matched_by,
            resamples=self.resamples,
            seed=self.seed,
        )

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens with the pair of the first two channels."""
        layer, width = _example_layer(model)
        matrix = [[0.0] * width for _ in range(width)]
        matrix[0][1] = matrix[1][0] = 1.0
        return cls({layer: matrix}, pairs=1, resamples=20), {}
