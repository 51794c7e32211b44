"""Scores from the gradient of the loss by weights, streamed over batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.model.layers import weight_rows
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.gradients import weight_gradients
from nodelens.pruning.masks import as_rows, weight_of
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import in_shape
from nodelens.pruning.strategy import Strategy

__all__ = ["AdaptiveMovement", "Fisher", "Gradient", "Momentum", "Movement", "Taylor"]

_ROOM = 2**24
"""Weights up to which sums are kept in float64; above, an LLM's would take twice its memory."""

State = dict[str, Tensor]
Gradients = Iterable[tuple[Tensor, int]]


class _ByGradient(Strategy):
    """A number for every weight, from its gradients; a channel's is the sum over its weights.

    Of an FFN's unit: its rows in gate and up, and its column in down. For one layer, `gradients`
    are those of its weight, `(*weight's shape)`, or one for every step in front; without any, what
    `loss.backward()` left in `.grad` is read. `loss` is that of `Lens` runs: None chooses it.
    """

    unit = "both"
    needs = ("loss",)
    options: ClassVar[Mapping[str, Any]] = {"loss": None}
    loss: Any
    per_sample: bool = False

    @abstractmethod
    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        """Take one gradient of the loss summed over `terms` predictions into the state."""

    @abstractmethod
    def finish(self, state: State, weight: Tensor) -> Tensor:
        """Return the number of every weight, from the state of all gradients."""

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        weight = weight_rows(layer).double()
        state: State = {}
        for gradient in _steps(layer, given.gradients):
            self.take(state, gradient.double(), weight, 1)
        found = self.finish(state, weight)
        return in_shape(found, layer) if self.of_weights else found.sum(1)

    def _scores(self, run: Run) -> dict[str, Tensor]:
        layers = list(dict.fromkeys(n for u in run.units.values() for n in (*u.feeders, u.name)))
        weights = {name: weight_rows(run.model.torch_module(name)) for name in layers}
        large = sum(weight.numel() for weight in weights.values()) > _ROOM
        kind = torch.float32 if large else torch.float64
        states: dict[str, State] = {name: {} for name in layers}
        options = {"loss": self.loss, "per_sample": self.per_sample, **run.options}
        for found, terms in weight_gradients(run.model, run.batches, layers, **options):
            for name, gradient in found.items():
                self.take(states[name], gradient.to(kind), weights[name].to(kind), terms)
        finished = {n: self.finish(states[n], weights[n].to(kind)) for n in layers}
        if self.of_weights:
            return {n: in_shape(finished[n], run.model.torch_module(n)) for n in run.units}
        return {n: unit.gathered(finished.__getitem__).sum(1) for n, unit in run.units.items()}


def _steps(layer: nn.Module, gradients: Tensor | None) -> Iterator[Tensor]:
    weight = weight_of(layer)
    if gradients is None:
        own = getattr(layer.weight, "grad", None)
        if not isinstance(own, Tensor):
            raise InvalidValueError(
                "it needs the weight's gradients: give gradients=, call loss.backward() first, or "
                "use scores(model, batches)"
            )
        gradients = own
    if gradients.shape == weight.shape:
        gradients = gradients[None]
    if gradients.shape[1:] != weight.shape or not len(gradients):
        raise ShapeError(
            f"gradients of shape {tuple(gradients.shape)}, expected the weight's "
            f"{tuple(weight.shape)}, or several of it in a stack"
        )
    return (as_rows(layer, gradient) for gradient in gradients.detach())


def _add(state: State, name: str, value: Tensor) -> None:
    state[name] = state[name].add_(value) if name in state else value.clone()


def _count(state: State, n: float) -> None:
    _add(state, "count", torch.tensor(float(n), dtype=torch.float64))


@register_strategy("gradient", paper="Mozer and Smolensky (1989), Skeletonization")
class Gradient(_ByGradient):
    """Sum of abs(g) over a unit's weights, g the gradient of the mean loss over all batches."""

    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        _add(state, "gradient", gradient)
        _count(state, terms)

    def finish(self, state: State, weight: Tensor) -> Tensor:
        return (state["gradient"] / float(state["count"])).abs()


@register_strategy("taylor", paper="Molchanov et al. (2017), Pruning convolutional neural networks")
class Taylor(Gradient):
    """Sum of abs(g w) over a unit's weights, g the gradient of the mean loss over all batches."""

    def finish(self, state: State, weight: Tensor) -> Tensor:
        return super().finish(state, weight) * weight.abs()


@register_strategy(
    "fisher", paper="Theis et al. (2018), Faster gaze prediction with Fisher pruning"
)
class Fisher(_ByGradient):
    """Sum of E g^2 w^2 over a unit's weights, g the gradient of a sample's loss.

    `per_sample=False` takes a batch for a sample, one backward pass each: faster, and then the
    score depends on how large the batches are.
    """

    options: ClassVar[Mapping[str, Any]] = {"per_sample": True}

    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        _add(state, "square", gradient.square())
        _count(state, 1)

    def finish(self, state: State, weight: Tensor) -> Tensor:
        return state["square"] / float(state["count"]) * weight.square()


@register_strategy("momentum")
class Momentum(_ByGradient):
    """Sum of abs(m), m the moving mean of g w over batches, `beta` of the old at each step.

    g is the gradient of a batch's mean loss. The start at zero is corrected for, as in Adam.
    """

    options: ClassVar[Mapping[str, Any]] = {"beta": 0.9}
    beta: float

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.beta, float) or not 0 <= self.beta < 1:
            raise InvalidValueError(f"beta is {self.beta!r}, expected a number from 0 to below 1")

    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        if "mean" in state:
            state["mean"].mul_(self.beta)
        _add(state, "mean", (1 - self.beta) / terms * gradient * weight)
        _count(state, 1)

    def finish(self, state: State, weight: Tensor) -> Tensor:
        started: float = 1 - self.beta ** int(state["count"])
        return (state["mean"] / started).abs()


@register_strategy("movement", paper="Sanh et al. (2020), Movement pruning")
class Movement(_ByGradient):
    """Sum of -w g over a unit's weights and over steps: a weight that grows away from zero is kept.

    Signed, and ranked as signed: what shrinks goes first.
    """

    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        _add(state, "movement", -(gradient / terms) * weight)

    def finish(self, state: State, weight: Tensor) -> Tensor:
        return state["movement"]


@register_strategy("adaptive_movement")
class AdaptiveMovement(Movement):
    """Movement over its own size: the sum of -w g over the root of the sum of (w g)^2, by weight.

    From -root(steps) to root(steps) a weight; one that never has a gradient scores 0.
    """

    def take(self, state: State, gradient: Tensor, weight: Tensor, terms: int) -> None:
        super().take(state, gradient, weight, terms)
        _add(state, "square", (gradient / terms * weight).square())

    def finish(self, state: State, weight: Tensor) -> Tensor:
        size = state["square"].sqrt()
        safe = torch.where(size > 0, size, torch.ones_like(size))
        return state["movement"] / safe
