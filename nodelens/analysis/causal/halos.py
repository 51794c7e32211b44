"""Does a halo matter, and does it matter because of its core?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nodelens.analysis.arrays import seeded
from nodelens.analysis.causal.calls import checked
from nodelens.analysis.causal.check import CausalCheck, CausalResult, Scores, score_arrays
from nodelens.analysis.causal.doses import of_places
from nodelens.analysis.causal.estimates import Estimate, interval
from nodelens.analysis.causal.lesions import Damage, Lesion, joined
from nodelens.analysis.causal.sampling import check_scored, matched, places
from nodelens.errors import InvalidValueError, whole

__all__ = ["HaloAblation", "halo_ablation"]


class HaloAblation(CausalCheck):
    """The halo goes, or as many channels that are no halo and score alike; with and without core.

    `halo`, `core` and `others` are `{layer: channels}`; controls are drawn `draws` times out of
    `others`, of the same layers, near in `scores` where they are given.
    """

    name = "halo_ablation"

    def __init__(
        self,
        halo: Mapping[str, Any],
        core: Mapping[str, Any],
        others: Mapping[str, Any],
        *,
        scores: Scores | None = None,
        draws: int = 20,
        seed: int = 0,
    ) -> None:
        mine, centre = places(halo), places(core)
        if not mine or not centre:
            raise InvalidValueError("a halo and a core need at least one channel each")
        if shared := set(mine) & set(centre):
            raise InvalidValueError(f"{min(shared)} is in the halo and in the core")
        pool = [place for place in places(others) if place not in {*mine, *centre}]
        whole("draws", draws, 1)
        by = None if scores is None else score_arrays(scores)
        self.widths = {layer: len(values) for layer, values in (by or {}).items()}
        check_scored([*mine, *pool], by)
        generator = seeded(seed)
        self.halo, self.core = of_places(mine), of_places(centre)
        self.controls = [of_places(matched(mine, pool, by, generator)) for _ in range(draws)]
        self.lesions: list[Lesion] = [
            self.core,
            *(which for part in (self.halo, *self.controls) for which in (part, self._both(part))),
        ]

    def _both(self, part: Lesion) -> Lesion:
        return joined(part, self.core)

    def conclude(self, damage: Damage) -> CausalResult:
        """Return gap and interaction, each with the interval of its controls and a p-value.

        `gap` is how far the halo's damage is above its controls', `interaction` how far halo and
        core together are above their sum, `interaction_gap` how far that is above the controls'.
        Intervals are over controls; `p` is (r + 1) / (n + 1), the r being controls that cost as
        much as the halo, or more.
        """
        cost = damage.changes([self.halo, *self.controls])
        together = damage.changes([self._both(part) for part in (self.halo, *self.controls)])
        core = damage.change(self.core)
        extra = together - cost - core
        p = [(int((v[1:] >= v[0]).sum()) + 1) / len(v) for v in (cost, extra)]
        estimates = {
            "halo": _exact(cost[0]),
            "core": _exact(core),
            "control": interval(cost[1:].mean(), cost[1:]),
            "gap": interval(cost[0] - cost[1:].mean(), cost[0] - cost[1:]),
            "interaction": _exact(extra[0]),
            "interaction_gap": interval(extra[0] - extra[1:].mean(), extra[0] - extra[1:]),
            "p": _exact(p[0]),
            "interaction_p": _exact(p[1]),
        }
        rows = [
            {
                "set": "halo" if not n else f"control {n}",
                "channels": sum(len(chosen) for _, chosen in part),
                "loss_change": cost[n],
                "with_core": together[n],
                "interaction": extra[n],
            }
            for n, part in enumerate((self.halo, *self.controls))
        ]
        return self.result(estimates, rows)


def _exact(value: float) -> Estimate:
    """A measured number: there is nothing that it could be drawn from anew."""
    return Estimate(float(value), float(value), float(value))


def halo_ablation(
    model: Any,
    batches: Iterable[Any],
    halo: Mapping[str, Any],
    core: Mapping[str, Any],
    others: Mapping[str, Any],
    **options: Any,
) -> CausalResult:
    """Return what a halo costs against matched controls; see `HaloAblation`."""
    return checked(HaloAblation, model, batches, (halo, core, others), options)
