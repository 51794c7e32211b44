"""What every pruning strategy is: scores of channels or weights, and the masks they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from nodelens.errors import (
    InvalidValueError,
    NodeLensError,
    ShapeError,
    UnknownOptionError,
    nearest,
)
from nodelens.model import ModelWrapper, wrap
from nodelens.model.loaded import check_loaded
from nodelens.pruning.config import PruningConfig, check_amount
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import (
    as_rows,
    check_scores,
    generator_for,
    keep_best,
    keep_pattern,
    protected_mask,
    ranked,
    removed_count,
    row_mask,
    weight_of,
)
from nodelens.pruning.units import Units, prunable

__all__ = ["Strategy"]

Protected = Sequence[int] | Tensor | None


class Strategy:
    """A way of telling which channels or weights to keep; a higher score is kept.

    Subclasses say what a layer's score is (`_score`), and where it takes more than weights, how it
    is measured over a model (`_scores`). A strategy holds options only.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    """What scoring takes beside the weights: "inputs", "loss", "targets"."""
    unit: ClassVar[str] = "channels"
    """What `score` is of: "channels", "weights", or "both" (weights with structured=False)."""
    per_row: ClassVar[bool] = False
    """Whether single weights compete within their row, as Wanda's do, not within the layer."""
    default_distribution: ClassVar[str] = "uniform"
    """The distribution that takes the place of "uniform", as of the global strategies."""
    options: ClassVar[Mapping[str, Any]] = {}
    """The options a strategy has of its own, with defaults; each becomes an attribute."""

    def __init__(self, config: PruningConfig | None = None, **options: Any) -> None:
        if config is not None and not isinstance(config, PruningConfig):
            raise InvalidValueError(
                f"strategy {self.name!r}: config is a {type(config).__name__}, "
                "expected a PruningConfig"
            )
        shared = {field.name for field in fields(PruningConfig)}
        own = self.own_options()
        for name in options:
            if name not in own and name not in shared:
                valid = [*own, *sorted(shared)]
                raise UnknownOptionError(
                    f"strategy {self.name!r} has no option {name!r}{nearest(name, valid)}; "
                    f"it has {', '.join(valid)}"
                )
        with self.named():
            given = {name: value for name, value in options.items() if name in shared - own.keys()}
            self.config = replace(config or PruningConfig(), **given)
            for name, default in own.items():
                setattr(self, name, options.get(name, default))
            self._check()

    @classmethod
    def own_options(cls) -> dict[str, Any]:
        """Return the options with their defaults, those of the classes above it included."""
        found: dict[str, Any] = {}
        for kind in reversed(cls.__mro__):
            found.update(vars(kind).get("options", {}))
        return found

    def _check(self) -> None:
        """Raise InvalidValueError for an option's value that will not do."""
        if self.unit == "channels" and not self.config.structured:
            raise InvalidValueError(
                "it scores channels, so structured=False has no single weights to mask"
            )

    def __repr__(self) -> str:
        own = ", ".join(f", {name}={getattr(self, name)!r}" for name in self.own_options())
        return f"{type(self).__name__}({self.config!r}{own})"

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put the strategy's name in front of what goes wrong."""
        try:
            yield
        except NodeLensError as error:
            error.within(f"strategy {self.name!r}")
            raise

    @property
    def of_weights(self) -> bool:
        """Return whether `score` gives every weight a number, not every channel."""
        return self.unit == "weights" or (self.unit == "both" and not self.config.structured)

    @property
    def of_heads(self) -> bool:
        """Return whether key-value groups of attention are scored too, an option of some."""
        return bool(getattr(self, "heads", False))

    @property
    def distribution(self) -> str:
        """Return how a budget is shared out to layers."""
        given = self.config.distribution
        return self.default_distribution if given == "uniform" else given

    # Scores

    def score(
        self,
        layer: nn.Module,
        inputs: Tensor | None = None,
        *,
        outputs: Tensor | None = None,
        gradients: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return the importance of a layer's channels, `(channels,)`, or of each weight.

        `inputs` are rows `(rows, width)` or maps; `gradients` those of the weight unless the
        strategy says otherwise. A higher score is kept.
        """
        return self._score(layer, Tensors(inputs, outputs, gradients, targets))

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return what `score` returns: every strategy has this, or a `score` of its own."""
        raise NotImplementedError

    def scores(
        self,
        model: Any,
        batches: Iterable[Any] | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        pattern: str | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Return the scores of a model's layers in forward order, float64 on the CPU.

        Each is `(channels,)`; under an FFN's down projection `(units,)`; of the weight's shape for
        a strategy of weights. Batches are gone through as a stream and the model stays as it is.
        `layers` and `pattern` choose as they do for a lens; see `prunable` for the default.
        """
        wrapper = wrap(model)
        with self.named():
            batches = self._batches(wrapper, batches)
            units = prunable(wrapper, layers, pattern, weights=self.of_weights, heads=self.of_heads)
            found = self._scores(Run(wrapper, units, batches, options))
            return {name: check_scores(s, f"layer {name!r}") for name, s in found.items()}

    def _batches(self, model: ModelWrapper, batches: Iterable[Any] | None) -> Iterable[Any]:
        """Return the batches, once the first has shown the model's route."""
        check_loaded(model.module)
        if batches is None:
            if self.needs:
                raise InvalidValueError(f"it needs {' and '.join(self.needs)}: give batches")
            return []
        kept = iter(batches)
        first = next(kept, None)
        if first is None:
            raise InvalidValueError("there is no batch, expected at least one")
        model.route(model.prepare_batch(first))
        if isinstance(batches, (list, tuple)):
            return batches
        from itertools import chain

        return chain([first], kept)

    def _scores(self, run: Run) -> dict[str, Tensor]:
        """Return the scores of the units chosen; here, of a strategy that reads weights alone.

        Of an FFN, the scores of a unit's rows in the layers that feed it are added up.
        """
        if run.options:
            raise UnknownOptionError(f"scores() has no option {next(iter(run.options))!r}")
        return {name: self._of(run.model, unit) for name, unit in run.units.items()}

    def _of(self, model: ModelWrapper, unit: Units) -> Tensor:
        if unit.site == "output":
            return self.score(model.torch_module(unit.name))
        parts = [self.score(model.torch_module(feeder)) for feeder in unit.feeders]
        return sum(parts[1:], parts[0])

    def budget_options(
        self, model: Any, scores: Mapping[str, Tensor], batches: Iterable[Any] | None
    ) -> dict[str, Any]:
        """Return what the distribution must know beside scores, as `masks` takes it."""
        if self.distribution != "adaptive_sensitivity":
            return {}
        if batches is None:
            raise InvalidValueError("adaptive_sensitivity is measured on batches: give some")
        from nodelens.pruning.sensitivity import measure_sensitivity

        return {"sensitivity": measure_sensitivity(model, scores, batches)}

    # Masks

    def prune(
        self,
        layer: nn.Module,
        inputs: Tensor | None = None,
        amount: float | None = None,
        *,
        protected: Protected = None,
        **tensors: Tensor | None,
    ) -> Tensor:
        """Return a bool mask of the layer's weight, True = kept; whole rows when structured.

        Exactly floor(amount * n) channels (or weights) go, ties by index, fewer only where
        `min_keep` or protected channels, which stay in every mode, leave fewer to take. `tensors`
        are those of `score`.
        """
        with self.named():
            score = self.score(layer, inputs, **tensors)
            return self.mask(layer, score, amount, protected=protected)

    def mask(
        self,
        layer: nn.Module,
        score: Tensor,
        amount: float | None = None,
        *,
        protected: Protected = None,
    ) -> Tensor:
        """Return the mask that `prune` makes of a score, `(channels,)` or the weight's shape."""
        amount = self.config.amount if amount is None else check_amount(amount)
        channels = as_rows(layer, weight_of(layer)).shape[0]
        score = check_scores(score, f"a {type(layer).__name__}")
        safe = protected_mask(protected, channels, "to prune")
        if self.config.structured:
            keep = self._keep_channels(self.of_channels(layer, score), amount, safe)
        else:
            keep = self._keep_weights(as_rows(layer, score), amount, safe)
        return row_mask(layer, keep)

    def of_channels(self, layer: nn.Module, score: Tensor) -> Tensor:
        """Return scores `(channels,)`: those of weights are added up over each row."""
        channels = as_rows(layer, weight_of(layer)).shape[0]
        if score.shape == (channels,):
            return score
        if self.unit == "channels":
            raise ShapeError(f"scores of shape {tuple(score.shape)} for {channels} channels")
        return as_rows(layer, score).sum(1)

    def _keep_channels(self, score: Tensor, amount: float, safe: Tensor) -> Tensor:
        order = ranked(score, self.config.pruning_mode, generator_for(self.config.seed, ""))
        n = len(score)
        removed = min(removed_count(amount, n), max(0, n - self.config.min_keep))
        return keep_best(order, removed, safe)

    def _keep_weights(self, score: Tensor, amount: float, safe: Tensor) -> Tensor:
        order = ranked(score, self.config.pruning_mode, generator_for(self.config.seed, ""))
        if self.config.nm is not None:
            return keep_pattern(order, self.config.nm, safe)
        if self.per_row:
            return self._keep_in_rows(order, amount, safe)
        whole = safe[:, None].expand(order.shape)
        removed = min(
            removed_count(amount, order.numel()), max(0, order.numel() - self.config.min_keep)
        )
        return keep_best(order, removed, whole)

    def _keep_in_rows(self, order: Tensor, amount: float, safe: Tensor) -> Tensor:
        width = order.shape[1]
        removed = min(removed_count(amount, width), max(0, width - self.config.min_keep))
        return keep_pattern(order, (width - removed, width), safe)

    def keep_counted(self, order: Tensor, removed: int, safe: Tensor) -> Tensor:
        """Return the mask of a layer's weight rows that lose `removed` weights of a budget."""
        return keep_best(order, removed, safe)

    def masks(
        self,
        model: Any,
        scores: Mapping[str, Tensor],
        amount: float | None = None,
        *,
        protected: Mapping[str, Protected] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Return a bool mask for every layer that has scores, True = kept, of the scores' shape.

        The budget is shared out by the config's distribution, and met exactly with every layer's
        least and most respected; InvalidValueError says why where that cannot be. `options` are
        the distribution's (`sensitivity`, `weight`).
        """
        from nodelens.pruning.allocation import masks_of

        with self.named():
            return masks_of(self, wrap(model), scores, amount, protected or {}, options)
