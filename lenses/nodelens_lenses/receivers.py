"""Whether the channels that a source is said to reach change when the source goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nodelens import Lens, ModelWrapper
from nodelens.analysis.causal import CausalResult, Receivers
from nodelens.analysis.causal.lens import EstimatingLens
from nodelens.analysis.causal.receivers import changed, read_calls, received, received_rows
from nodelens.progress import announce
from nodelens.statistics import Moments, Sample

__all__ = ["HaloReceiversLens"]


@Lens.register("halo_receivers")
class HaloReceiversLens(EstimatingLens):
    """How far predicted influence foretells which channels a source's removal disrupts.

    `source` is `{layer: channels}`, `receiver` a layer behind it and `influence` the prediction,
    `(channels,)`. Controls are `draws` times as many channels out of `others`, `{layer: channels}`.
    `resamples` and `seed` are of the bootstrap over receivers; `site` and `value` are as for
    `ablation`. Padding does not count.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `spearman` of influence and
    disruption, and where there are controls `control`, that of the mean disruption by them, and
    the `gap` between both. `concluded` gives the disruption of every channel.
    """

    unitless = ("spearman", "control", "gap")
    formula = (
        r"\rho_j\bigl(I_j, \sqrt{\langle (a_j^{-S} - a_j)^2 \rangle"
        r" / \operatorname{var} a_j}\bigr)"
    )
    where = "$I_j$ is the predicted influence on channel $j$, $a_j^{-S}$ it without the source $S$"
    degenerate = "A channel that never varies is not disrupted; constant ranks correlate by 0."
    exempt = dict.fromkeys(
        ("split_invariance", "half_precision"),
        "ranks jump where two channels change by nearly the same, as rounding makes them",
    )

    def __init__(
        self,
        source: Mapping[str, Sequence[int]],
        receiver: str,
        influence: Any,
        *,
        others: Mapping[str, Sequence[int]] | None = None,
        draws: int = 10,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        value: Any = "zero",
    ) -> None:
        super().__init__()
        self.source, self.receiver = source, receiver
        self.influence, self.others = influence, others
        self.draws, self.resamples, self.seed = draws, resamples, seed
        self.site, self.value = site, value
        self.check()

    def check(self) -> Receivers:
        """Return the source's and the controls' lesions."""
        return Receivers(
            self.source,
            self.receiver,
            self.influence,
            others=self.others,
            draws=self.draws,
            resamples=self.resamples,
            seed=self.seed,
        )

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once it is known to have the receiver and the sources."""
        wrapper = super().prepare(model, **kwargs)
        self.check().check_on(wrapper)
        return wrapper

    def _watched(self, stream: Any, batch: Any) -> list[str]:
        return [self.receiver]

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        visits = model.route(kwargs["batch"]).visits[self.receiver]
        return {"calls": read_calls(model, visits, self.receiver)}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model = stream.model
        lesions = stream.once("lesions", lambda: self._lesions(model, batch))
        before = received_rows(found[0]["calls"], model, batch, self.receiver)
        measured: dict[Any, Any] = {"intact": Moments.measure(Sample(before))}
        for number, which in enumerate(lesions):
            after = received(model, batch, self.receiver, which, site=self.site, value=self.value)
            measured[f"change {number}"] = changed(before, after)
        return {"model": measured}

    def _lesions(self, model: ModelWrapper, batch: Any) -> list[Any]:
        check = self.check()
        check.check_order(model.route(batch))
        announce(f"lens {self.name!r}: {1 + len(check.lesions)} passes a batch")
        return check.lesions

    def concluded(self, statistics: Any) -> CausalResult:
        found = dict(statistics["model"])
        intact = found.pop("intact")
        return self.check().conclude(intact, list(found.values()))

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens on one channel of a first layer and all of the layer behind it."""
        route = model.known_route()
        names = list(model.layers)
        if route is not None:
            names = sorted(filter(route.reached, names), key=route.order)
        source, receiver = names[0], names[1]
        influence = list(range(model.layers[receiver].channels))
        rest = list(range(1, model.layers[source].channels))
        return cls({source: [0]}, receiver, influence, others={source: rest}, draws=1), {}
