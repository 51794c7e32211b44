"""How scores of channels come to be what they are, over the checkpoints of one training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nodelens.analysis.arrays import Array, array, fraction
from nodelens.analysis.causal.estimates import rank_correlations, top_recalls
from nodelens.errors import InvalidValueError, OutputError, ShapeError, TooFewRowsError, nearest
from nodelens.model.wrapper import wrap
from nodelens.result import LensResult

if TYPE_CHECKING:
    import pandas

__all__ = ["Dynamics", "dynamics", "score_checkpoints"]


@dataclass(frozen=True)
class Dynamics:
    """What the checkpoints of a run say of a score; c checkpoints.

    By channel, `(channels,)`: `final` the last value; `slope` of the least-squares line, in units
    of the score a step, or a factor e of steps; `tau` Kendall's tau-b with the step, 1 where the
    score only rises; `loss` its Spearman correlation with the loss, None without one. By
    checkpoint: `neighbours` `(c - 1,)` the Spearman correlation of the channels' scores with those
    of the checkpoint before, `with_last` `(c,)` with those of the last, and `top_overlap` `(c,)`
    the share of the last one's top channels that are at the top already.
    """

    steps: Array
    final: Tensor
    slope: Tensor
    tau: Tensor
    loss: Tensor | None
    neighbours: Tensor
    with_last: Tensor
    top_overlap: Tensor

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row a checkpoint: step, stability, and overlap with the last top."""
        import pandas

        before = np.concatenate([[np.nan], self.neighbours.numpy()])
        return pandas.DataFrame(
            {
                "step": self.steps,
                "with_before": before,
                "with_last": self.with_last.numpy(),
                "top_overlap": self.top_overlap.numpy(),
            }
        )


def dynamics(
    scores: Any,
    steps: Sequence[float] | None = None,
    losses: Any = None,
    *,
    log_steps: bool = False,
    top: float = 0.1,
) -> Dynamics:
    """Return trend, relation to the loss and stability of scores `(checkpoints, channels)`.

    `steps` rise, `0, 1, 2, ...` by default; with `log_steps` the slope is against their logarithm.
    `losses` are `(checkpoints,)`. `top` is the fraction of channels whose overlap is asked for, at
    least one. A constant score has slope, tau and correlations 0.

    Raises ShapeError, TooFewRowsError with fewer than two checkpoints, InvalidValueError for steps
    that do not rise, or of which there is no logarithm.

    >>> found = dynamics([[1.0, 9.0], [2.0, 6.0], [3.0, 3.0]], steps=[0, 10, 20])
    >>> found.slope.tolist(), found.tau.tolist()
    ([0.1, -0.3], [1.0, -1.0])
    """
    values = array(scores, "scores")
    if values.ndim != 2 or not values.shape[1]:
        raise ShapeError(f"scores have shape {values.shape}, expected (checkpoints, channels)")
    if len(values) < 2:
        raise TooFewRowsError(f"scores of {len(values)} checkpoint, expected at least 2")
    at = _steps(steps, len(values), log_steps)
    last = np.broadcast_to(values[-1], values.shape)
    k = max(1, round(fraction("top", top) * values.shape[1]))
    return Dynamics(
        steps=np.arange(len(values), dtype=float) if steps is None else np.asarray(steps, float),
        final=torch.from_numpy(values[-1].copy()),
        slope=torch.from_numpy(_slopes(values, at)),
        tau=torch.from_numpy(_taus(values)),
        loss=None if losses is None else torch.from_numpy(_with_loss(values, losses)),
        neighbours=torch.from_numpy(rank_correlations(values[:-1], values[1:])),
        with_last=torch.from_numpy(rank_correlations(values, last)),
        top_overlap=torch.from_numpy(top_recalls(values, last, k)),
    )


def score_checkpoints(
    model: Any,
    checkpoints: Iterable[str | Path | Mapping[str, Tensor]],
    score: Callable[[Any], Any],
) -> dict[str, Tensor]:
    """Return the scores of every layer at every checkpoint, `{layer: (checkpoints, channels)}`.

    `checkpoints` are safetensors files or state dicts of `model`, loaded one after the other;
    `score` takes the model as it was given and returns a LensResult (its first score counts) or
    `{layer: (channels,)}`. The model's own weights are there again afterwards, also after an error.

    Raises InvalidValueError and ShapeError for a checkpoint of another model, before any of its
    weights is loaded, OutputError for a file that cannot be read.
    """
    module = wrap(model).module
    rows: dict[str, list[Tensor]] = {}
    with _weights_kept(module):
        for number, given in enumerate(checkpoints):
            what = f"checkpoint {number}"
            state = given if isinstance(given, Mapping) else _read(Path(given), what)
            _check_fits(module, state, what)
            module.load_state_dict(dict(state))
            found = score(model)
            found = found.scores() if isinstance(found, LensResult) else found
            if rows and found.keys() != rows.keys():
                raise ShapeError(f"{what}: scores of {list(found)}, before of {list(rows)}")
            for layer, values in found.items():
                rows.setdefault(layer, []).append(_as_row(values, layer, rows.get(layer), what))
    if not rows:
        raise TooFewRowsError("no checkpoint was scored, expected at least one")
    return {layer: torch.stack(values) for layer, values in rows.items()}


@contextmanager
def _weights_kept(module: nn.Module) -> Iterator[None]:
    kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(kept)


def _read(path: Path, what: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as failure:
        raise OutputError(f"{what}: cannot read {str(path)!r}: {failure}") from failure


def _check_fits(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    own = module.state_dict()
    for name in own:
        if name not in state:
            raise InvalidValueError(f"{what} has no {name!r}{nearest(name, state)}")
    for name, value in state.items():
        if name not in own:
            raise InvalidValueError(f"{what} has {name!r}, the model has not{nearest(name, own)}")
        if value.shape != own[name].shape:
            raise ShapeError(
                f"{what}: {name!r} has shape {tuple(value.shape)}, "
                f"expected {tuple(own[name].shape)}"
            )


def _as_row(values: Any, layer: str, before: list[Tensor] | None, what: str) -> Tensor:
    row = torch.as_tensor(values).detach().to("cpu", torch.float64).clone()
    if row.ndim != 1 or (before and row.shape != before[0].shape):
        expected = tuple(before[0].shape) if before else "(channels,)"
        raise ShapeError(
            f"{what}: scores of layer {layer!r} have shape {tuple(row.shape)}, expected {expected}"
        )
    return row


def _steps(steps: Sequence[float] | None, count: int, log_steps: bool) -> Array:
    at = np.arange(count, dtype=float) if steps is None else array(steps, "steps")
    if at.shape != (count,):
        raise ShapeError(f"steps have shape {at.shape}, expected ({count},), one a checkpoint")
    if (np.diff(at) <= 0).any():
        raise InvalidValueError(f"steps are {at.tolist()}, expected rising numbers")
    if log_steps and at[0] <= 0:
        raise InvalidValueError(f"the first step is {at[0]:g}, which has no logarithm")
    return np.log(at) if log_steps else at


def _slopes(values: Array, at: Array) -> Array:
    away = at - at.mean()
    slopes: Array = away @ (values - values.mean(0)) / (away @ away)
    return slopes


def _taus(values: Array) -> Array:
    """Kendall's tau-b (1945) of every column with its order: steps have no ties."""
    first, second = np.triu_indices(len(values), 1)
    signs = np.sign(values[second] - values[first])
    untied = np.abs(signs).sum(0)
    size = np.sqrt(len(first) * untied)
    taus: Array = np.divide(signs.sum(0), size, out=np.zeros_like(size), where=size > 0)
    return taus


def _with_loss(values: Array, losses: Any) -> Array:
    given = array(losses, "losses")
    if given.shape != (len(values),):
        raise ShapeError(f"losses have shape {given.shape}, expected ({len(values)},)")
    return rank_correlations(values.T, np.broadcast_to(given, values.T.shape))
