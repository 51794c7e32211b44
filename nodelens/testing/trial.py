"""One lens on one awkward network: what every check starts from, and how scores are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.aggregator import Aggregator
from nodelens.errors import IncompatibleModelError
from nodelens.lens import Lens
from nodelens.model import ModelWrapper, wrap
from nodelens.result import LensResult
from nodelens.testing.subjects import SUBJECTS, Subject, rows_of

__all__ = ["TOLERANCE", "Trial", "aggregated", "assert_close", "assert_equal", "assert_finite"]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest difference allowed, relative to the largest score of the layer, by the model's type."""


class Trial:
    """A registered lens, with a network it can score and a batch for it."""

    def __init__(self, name: str, subject: Subject | None = None) -> None:
        self.name = name
        self.kind = Lens.named(name)
        self._given = subject

    @cached_property
    def subject(self) -> Subject:
        """Return the first network the lens can score; IncompatibleModelError without one."""
        refusals = []
        for subject in [self._given] if self._given else SUBJECTS:
            model = _routed(subject.model(), subject.batch())
            lens, _ = self.kind.example(model)
            if (refusal := lens.refusal(model)) is None:
                return subject
            refusals.append(f"{subject.name}: {refusal}")
        raise IncompatibleModelError(f"lens {self.name!r} scores none of: {'; '.join(refusals)}")

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return a new network, always the same, its weights in `dtype`."""
        return self.subject.model().to(dtype)

    def batch(self, rows: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor]:
        """Return a batch for the network, images in `dtype`."""
        inputs, targets = self.subject.batch(rows)
        return (inputs if isinstance(inputs, dict) else inputs.to(dtype)), targets

    def parts(self, *sizes: int, dtype: torch.dtype = torch.float32) -> list[tuple[Any, Tensor]]:
        """Return one batch cut into batches of these sizes."""
        batch, ends = self.batch(sum(sizes), dtype), accumulate(sizes)
        return [rows_of(batch, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]

    def lens(self, model: Any) -> tuple[Lens, dict[str, Any]]:
        """Return the lens as its `example` makes it for a model, and the options of a run."""
        return self.kind.example(_routed(model, self.batch(dtype=_dtype(model))))

    def run(self, batches: Sequence[Any], model: nn.Module | None = None) -> LensResult:
        """Return the scores of these batches, on a new network unless one is given."""
        model = self.model() if model is None else model
        lens, options = self.lens(model)
        return lens.run(model, batches, progress=False, **options)

    def measured(self, batches: Sequence[Any], dtype: torch.dtype = torch.float32) -> list[Any]:
        """Return the statistics of every batch."""
        model = self.model(dtype)
        lens, options = self.lens(model)
        return list(lens.analyse_batched(model, batches, **options))


def _dtype(model: Any) -> torch.dtype:
    return next(wrap(model).module.parameters()).dtype


def _routed(model: Any, batch: Any) -> ModelWrapper:
    # Only a pass shows some of what a lens may ask for, such as where feed-forward blocks end.
    wrapper = wrap(model)
    wrapper.route(wrapper.prepare_batch(batch))
    return wrapper


def aggregated(lens: Lens, statistics: Sequence[Mapping[str, Any]]) -> Aggregator:
    """Return an aggregator that has seen these statistics."""
    aggregator = lens.aggregator()
    for found in statistics:
        aggregator.update(found)
    return aggregator


def assert_close(actual: LensResult, expected: LensResult, tolerance: float) -> None:
    """Raise AssertionError unless all scores agree, relative to the largest of their layer."""
    for layer, score, mine, theirs in _pairs(actual, expected):
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        far = (mine - theirs).abs() > tolerance * size
        if bool(far.any()):
            at = int((mine - theirs).abs().argmax())
            raise AssertionError(
                f"layer {layer!r}, score {score!r}, entry {at}: {float(mine.flatten()[at])!r}, "
                f"expected {float(theirs.flatten()[at])!r} to {tolerance:g} of {size:.4g}"
            )


def assert_equal(actual: LensResult, expected: LensResult) -> None:
    """Raise AssertionError unless all scores are equal bit for bit."""
    for layer, score, mine, theirs in _pairs(actual, expected):
        assert torch.equal(mine, theirs), f"layer {layer!r}: score {score!r} differs"


def _pairs(actual: LensResult, expected: LensResult) -> list[tuple[str, str, Tensor, Tensor]]:
    mine = {(layer, name) for layer, scores in actual.items() for name in scores}
    theirs = {(layer, name) for layer, scores in expected.items() for name in scores}
    assert mine == theirs, f"scores {sorted(mine)}, expected {sorted(theirs)}"
    pairs = [(layer, name, actual[layer][name], expected[layer][name]) for layer, name in theirs]
    for layer, name, a, b in pairs:
        assert a.shape == b.shape, f"layer {layer!r}, score {name!r}: {a.shape} and {b.shape}"
    return pairs


def assert_finite(result: LensResult) -> None:
    """Raise AssertionError unless there are scores, and all are finite."""
    assert result, "the result has no layer"
    for layer, scores in result.items():
        for name, values in scores.items():
            bad = (~torch.isfinite(values)).flatten().nonzero().flatten().tolist()
            assert not bad, f"layer {layer!r}: score {name!r} is not finite for channels {bad}"
