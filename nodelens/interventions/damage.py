"""What each channel of a layer costs when it alone is silenced, many of them in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.interventions.channels import Condition, Part, Value, parts_of
from nodelens.interventions.silence import edited_outputs, numbered, silenced_outputs
from nodelens.interventions.values import silent_tensor
from nodelens.model.gather import replaced
from nodelens.model.layers import first_tensor
from nodelens.model.loss import Prediction, predict
from nodelens.model.route import FAILURES
from nodelens.model.wrapper import ModelWrapper, wrap

__all__ = ["channel_losses", "channel_predictions", "repeated", "single_channel_damage"]


def single_channel_damage(
    model: Any,
    batches: Iterable[Any],
    layer: str,
    channels: Sequence[int] | Tensor | None = None,
    *,
    value: Value = "zero",
    site: str = "output",
    seed: int = 0,
    at_once: int = 16,
    loss: Any = None,
) -> Tensor:
    """Return by how much the loss rises without each channel alone, `(channels,)`, float64.

    In the loss's own unit a prediction, nats for classes; in the order of `channels`, all of the
    layer's by default. Numbers are those of `evaluate(...).loss` with the channel, less that
    without any. `at_once` channels share a pass: see `channel_losses`.
    """
    wrapper = wrap(model)
    chosen = range(_width(wrapper, layer, site)) if channels is None else channels
    condition = Condition({layer: chosen}, value=value, site=site, seed=seed)
    change: Tensor | None = None
    terms = 0
    with torch.random.fork_rng(devices=[]):
        for number, given in enumerate(batches):
            with numbered(number):
                batch = wrapper.prepare_batch(given)
                outputs = wrapper.forward(batch)
                dense = predict(outputs, batch, wrapper.module, loss)
                silent = channel_losses(
                    wrapper, batch, outputs, condition, at_once=at_once, loss=loss
                )
            more = silent - float(dense.loss)
            change = more if change is None else change + more
            terms += dense.terms
    if change is None or not terms:
        raise InvalidValueError("nothing was predicted, expected at least one batch with targets")
    return change / terms


def channel_losses(
    wrapper: ModelWrapper,
    batch: Batch,
    dense: Any,
    condition: Condition,
    *,
    at_once: int = 16,
    loss: Any = None,
) -> Tensor:
    """Return a batch's summed loss without each channel of one layer alone, `(channels,)`, float64.

    See `channel_predictions`.
    """
    found = channel_predictions(wrapper, batch, dense, condition, at_once=at_once, loss=loss)
    return torch.tensor([float(one.loss) for one in found], dtype=torch.float64)


def channel_predictions(
    wrapper: ModelWrapper,
    batch: Batch,
    dense: Any,
    condition: Condition,
    *,
    at_once: int = 16,
    loss: Any = None,
) -> list[Prediction]:
    """Return a batch's loss and right answers without each channel of one layer alone.

    The batch is repeated along its first axis, once a channel and once as it is, and another
    channel silenced in every copy: one pass for `at_once` channels. Where copies may not share a
    pass (what goes in has no common first axis, a norm takes its statistics from the batch, or the
    copy that is left as it is does not come out like `dense`, the model's output) each channel has
    a pass of its own; the numbers are the same.
    """
    if at_once < 1:
        raise InvalidValueError(f"at_once is {at_once!r}, expected 1 or more")
    (part,) = parts_of(wrapper, condition)
    singles = [
        replace(part, indices=part.indices[n : n + 1], fill=_at(part.fill, n))
        for n in range(len(part.indices))
    ]
    found: list[Prediction] = []
    together = at_once > 1 and not _mixes_rows(wrapper.module)
    while len(found) < len(singles):
        some = singles[len(found) : len(found) + (at_once if together else 1)]
        told = _together(wrapper, batch, dense, some, condition, loss) if together else None
        together = told is not None
        if told is None:
            told = [_alone(wrapper, batch, some[0], condition, loss)]
        found += told
    return found


def repeated(batch: Batch, copies: int) -> Batch | None:
    """Return the inputs of a batch so many times behind one another; None where they cannot be.

    Every tensor whose first axis is the batch is repeated; one whose first axis is 1 is for all.
    """
    size = batch.size()

    def repeat(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or len(value) != size:
            return value
        return torch.cat([value] * copies)

    given = (*batch.args, *batch.kwargs.values())
    if not all(_fits(value, size) for value in given) or not any(
        isinstance(value, Tensor) and value.ndim for value in given
    ):
        return None
    args = tuple(repeat(value) for value in batch.args)
    return Batch(args, {name: repeat(value) for name, value in batch.kwargs.items()})


def _fits(value: Any, size: int) -> bool:
    if isinstance(value, Tensor):
        return not value.ndim or len(value) in (1, size)
    return value is None or isinstance(value, (bool, int, float, str))


def _together(
    wrapper: ModelWrapper,
    batch: Batch,
    dense: Any,
    singles: Sequence[Part],
    condition: Condition,
    loss: Any,
) -> list[Prediction] | None:
    """The predictions of several channels by one pass, None where the copies do not stay apart."""
    copies, size, apart = len(singles) + 1, batch.size(), [True]
    many = repeated(batch, copies)
    if many is None:
        return None

    def change(raw: Any, part: Part) -> Any:
        tensor = first_tensor(raw)
        if tensor is None:
            raise ShapeError(f"layer {part.layer.name!r} has no tensor to silence")
        axis = _batch_axis(tensor, copies, size)
        if axis is None:
            apart[0] = False
            return raw
        untouched, *pieces = tensor.chunk(copies, axis)
        silent = [
            silent_tensor(piece, single, condition, batch)
            for piece, single in zip(pieces, singles, strict=True)
        ]
        return replaced(raw, torch.cat([untouched, *silent], axis))

    try:
        outputs = edited_outputs(wrapper, many, singles[:1], change)
    except FAILURES:
        # The model may take no batch of another size; what else is wrong shows in a pass alone.
        return None
    split = [_copy(outputs, number, copies, size) for number in range(copies)]
    if not apart[0] or not _same(split[0], dense):
        return None
    return [_told(one, batch, wrapper, loss) for one in split[1:]]


def _batch_axis(tensor: Tensor, copies: int, size: int) -> int | None:
    """The axis on which a tensor has the copies one behind another, None where none is it."""
    if tensor.ndim and tensor.shape[0] == copies * size:
        return 0
    if tensor.ndim > 2 and tensor.shape[1] == copies * size:
        return 1
    # Models that lay tokens behind one another keep those of a sample together.
    return 0 if tensor.ndim and tensor.shape[0] % (copies * size) == 0 else None


def _copy(outputs: Any, number: int, copies: int, size: int) -> Any:
    """One copy's part of the outputs: what has all copies on its first axis is cut."""
    from torch.utils._pytree import tree_map_only

    def cut(tensor: Tensor) -> Tensor:
        whole = not tensor.ndim or tensor.shape[0] != copies * size
        return tensor if whole else tensor[number * size : (number + 1) * size]

    return tree_map_only(Tensor, cut, outputs)


def _same(copy: Any, dense: Any) -> bool:
    """Whether two outputs differ by rounding alone, relative to the largest entry."""
    found, expected = (first_tensor(getattr(o, "logits", o)) for o in (copy, dense))
    if found is None or expected is None or found.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return bool(torch.equal(found, expected))
    if not expected.numel():
        return True
    scale, gap = float(expected.abs().max()), float((found - expected).abs().max())
    return bool(gap <= scale * float(torch.finfo(expected.dtype).eps) ** 0.5)


def _mixes_rows(module: nn.Module) -> bool:
    norms = (nn.modules.batchnorm._BatchNorm,)
    return any(isinstance(m, norms) and m.running_mean is None for m in module.modules())


def _alone(
    wrapper: ModelWrapper, batch: Batch, part: Part, condition: Condition, loss: Any
) -> Prediction:
    one = replace(condition, channels={part.layer.name: part.indices})
    return _told(silenced_outputs(wrapper, batch, one), batch, wrapper, loss)


def _told(outputs: Any, batch: Batch, wrapper: ModelWrapper, loss: Any) -> Prediction:
    # Many are kept: not the logits, which hold the outputs of all copies.
    return replace(predict(outputs, batch, wrapper.module, loss), logits=None, targets=None)


def _at(fill: Tensor | None, number: int) -> Tensor | None:
    return None if fill is None else fill[number : number + 1]


def _width(wrapper: ModelWrapper, layer: str, site: str) -> int:
    (part,) = parts_of(wrapper, Condition({layer: ()}, site=site))
    return part.layer.channels if part.site == "output" else part.layer.inputs
