"""Laws of streams: what must not depend on how data came, was merged, saved or shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from nodelens.aggregator import Aggregator
from nodelens.composite import CompositeLens
from nodelens.errors import InvalidValueError
from nodelens.metrics import MetricLens
from nodelens.model import Layer
from nodelens.result import LensResult
from nodelens.statistics import ActivationGradient, CoMoments, Extremes, Moments, Read
from nodelens.testing.trial import TOLERANCE, Trial, aggregated, assert_close, assert_equal

__all__ = [
    "composite",
    "merge_laws",
    "repeatable",
    "saved_state",
    "split_invariance",
    "split_invariance_in_float64",
]

_SPLITS = ((7, 5), (1, 1, 8, 2))


def split_invariance(trial: Trial) -> None:
    """One batch gives the scores of any split of it."""
    _compare_splits(trial, torch.float32)


def split_invariance_in_float64(trial: Trial) -> None:
    """One batch gives the scores of any split of it to 1e-10, in a float64 model."""
    _compare_splits(trial, torch.float64)


def _compare_splits(trial: Trial, dtype: torch.dtype) -> None:
    model = trial.model(dtype)
    whole = trial.run(trial.parts(12, dtype=dtype), model)
    for sizes in _SPLITS:
        split = trial.run(trial.parts(*sizes, dtype=dtype), model)
        assert_close(split, whole, TOLERANCE[dtype])
        assert split.rows == whole.rows, f"{split.rows} rows, expected {whole.rows}"


def merge_laws(trial: Trial) -> None:
    """Merging is associative, commutative and leaves what is merged in as it was."""
    lens, _ = trial.lens(trial.model(torch.float64))
    a, b, c = trial.measured(trial.parts(3, 8, 1, dtype=torch.float64), torch.float64)

    def merged(*parts: Aggregator) -> Aggregator:
        total = lens.aggregator()
        for part in parts:
            total.merge(part)
        return total

    def one(statistics: Any) -> Aggregator:
        return aggregated(lens, [statistics])

    stream = aggregated(lens, [a, b, c]).result()
    left = merged(merged(one(a), one(b)), one(c))
    right = merged(one(a), merged(one(b), one(c)))
    turned = merged(one(c), one(a), one(b))
    for other in (left, right, turned, merged(lens.aggregator(), left)):
        assert_close(other.result(), stream, TOLERANCE[torch.float64])
        assert other.batches == 3, f"{other.batches} batches, expected 3"
    assert_equal(aggregated(lens, [a, b, c]).result(), stream)


def repeatable(trial: Trial) -> None:
    """Two runs give equal scores bit for bit, whatever was drawn from global generators before."""
    first = trial.run(trial.parts(8))
    model = trial.model()
    lens, options = trial.lens(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert_equal(lens.analyse(model, trial.batch(8), **options), first)
        assert_equal(lens.run(model, trial.parts(8), progress=False, **options), first)


def saved_state(trial: Trial) -> None:
    """A saved aggregator and a saved result give equal scores, and so does going on from one."""
    lens, _ = trial.lens(trial.model())
    a, b = trial.measured(trial.parts(7, 5))
    straight = aggregated(lens, [a, b]).result()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        aggregated(lens, [a]).save(path)
        # Options that are no plain data, such as a loss, cannot be saved: then the lens is given.
        loaded = Aggregator.load(path, None if lens.spec()["complete"] else lens)
        loaded.update(b)
        assert_equal(loaded.result(), straight)
        straight.save(folder)
        assert_equal(LensResult.load(folder), straight)


def composite(trial: Trial) -> None:
    """Among other lenses all scores are those of each alone; a lens that edits is refused."""
    model = trial.model()
    lens, options = trial.lens(model)
    if lens.edits:
        _assert_refused(trial, lens)
        return
    batches, companion = trial.parts(8), _Companion()
    alone = lens.run(model, batches, progress=False, **options)
    other = companion.run(model, batches, progress=False)
    for lenses in ([lens, companion], [companion, lens]):
        together = CompositeLens(lenses).run(model, batches, progress=False, **options)
        for expected in (alone, other):
            assert_close(_share(together, expected), expected, TOLERANCE[torch.float32])


def _share(together: LensResult, alone: LensResult) -> LensResult:
    """What of a composite's result is also in the result of one lens."""
    return LensResult(
        {
            layer: {n: together[layer][n] for n in scores if n in together[layer]}
            for layer, scores in alone.items()
        }
    )


def _assert_refused(trial: Trial, lens: Any) -> None:
    try:
        CompositeLens([lens, _Companion()])
    except InvalidValueError as refusal:
        assert trial.name in str(refusal), f"the refusal does not name the lens: {refusal}"
    else:
        raise AssertionError("a lens that edits activations was let into a composite")


class _Companion(MetricLens):
    """Reads both ends of every layer and a gradient: whatever it may share, it shares."""

    name = "companion"
    minimum_rows = 2

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {
            "outputs": Read("output", Moments, {"order": 4}),
            "pairs": Read("output", CoMoments),
            "slopes": Read("output", ActivationGradient),
            "inputs": Read("input", Extremes),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        variance: Tensor = statistics["outputs"].variance()
        return variance
