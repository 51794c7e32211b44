"""One form for every kind of batch: what goes to the model, what is the target, what is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nodelens.errors import InvalidValueError, ShapeError, UnknownOptionError, nearest

__all__ = ["BATCH_OPTIONS", "Batch", "as_batch", "as_mask"]

BATCH_OPTIONS = ("targets", "mask", "loss", "model_kwargs", "token_classes")
"""What `(inputs, {option: value})` may set for its own batch."""

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """One batch, ready for a forward pass.

    `mask` is bool, True for rows that count, shaped like the leading axes of the activations
    (`(batch, tokens)`); None when every row counts. `labels` are targets that came inside a
    tokenizer's dict, with -100 where there is nothing to predict. Where next tokens are the
    targets, statistics sort them into `token_classes`.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    targets: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None
    loss: Loss | str | None = None
    token_classes: int = 256

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`."""
        return replace(
            self,
            args=tuple(_move(a, device) for a in self.args),
            kwargs={k: _move(v, device) for k, v in self.kwargs.items()},
            targets=_move(self.targets, device),
            labels=_move(self.labels, device),
            mask=_move(self.mask, device),
        )

    def size(self) -> int:
        """Return the length of the first axis of the first input; 1 when it has none."""
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Tensor) and value.ndim:
                return int(value.shape[0])
        return 1

    def axes(self) -> tuple[int, int] | None:
        """Return the lengths of the first two axes of the first input that has two."""
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Tensor) and value.ndim > 1:
                return int(value.shape[0]), int(value.shape[1])
        return None


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def as_batch(*inputs: Any, options: Mapping[str, Any] | None = None) -> Batch:
    """Return the batch that `inputs` describe.

    One input: a tensor, `(inputs, targets)`, `(inputs, {options})`, or a mapping of model keywords
    as a tokenizer returns. Several: the model's positional inputs. `options` apply where the batch
    does not say otherwise.

    Raises UnknownOptionError, ShapeError for targets of another length, InvalidValueError when
    there is no input.
    """
    if not inputs or (len(inputs) == 1 and inputs[0] is None):
        raise InvalidValueError("no batch was given, expected inputs for the model")
    own: dict[str, Any] = {}
    if len(inputs) == 1:
        args, kwargs, own = _read_one(inputs[0])
    else:
        args, kwargs = inputs, {}
    return _assemble(args, kwargs, {**(options or {}), **own})


def _read_one(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch), {}
    if isinstance(batch, (DataLoader, Iterator)):
        raise InvalidValueError(
            f"a stream of batches (a {type(batch).__name__}) was given where one batch is "
            "expected: use run(model, batches)"
        )
    if not isinstance(batch, (tuple, list)):
        return (batch,), {}, {}
    if len(batch) == 1:
        return _read_one(batch[0])
    if len(batch) != 2:
        raise InvalidValueError(
            f"a batch of {len(batch)} parts, expected inputs, (inputs, targets) or "
            "(inputs, options); several inputs go in a tuple of their own"
        )
    inputs, second = batch
    if isinstance(inputs, Mapping):
        args, kwargs = (), dict(inputs)
    else:
        args, kwargs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {}
    if isinstance(second, Mapping):
        _check_options(second)
        return args, kwargs, dict(second)
    return args, kwargs, {"targets": second}


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in BATCH_OPTIONS:
            raise UnknownOptionError(
                f"unknown batch option {name!r}{nearest(str(name), BATCH_OPTIONS)}; "
                f"a batch may set {', '.join(BATCH_OPTIONS)}"
            )


def _assemble(args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> Batch:
    kwargs.update(options.get("model_kwargs") or {})
    args = tuple(_tensor(a) for a in args)
    kwargs = {k: _tensor(v) for k, v in kwargs.items()}
    labels = kwargs.pop("labels", None)
    mask = options.get("mask", kwargs.get("attention_mask"))
    batch = Batch(
        args,
        kwargs,
        _targets(options.get("targets")),
        labels,
        as_mask(mask),
        options.get("loss"),
        _counted(options.get("token_classes", 256)),
    )
    _check_lengths(batch)
    return batch


def _targets(given: Any) -> Tensor | None:
    if given is None or isinstance(given, Tensor):
        return given
    try:
        return torch.as_tensor(given)
    except (RuntimeError, TypeError, ValueError) as failure:
        raise InvalidValueError(
            f"no tensor can be made of the targets, a {type(given).__name__}: {failure}"
        ) from failure


def _counted(classes: Any) -> int:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InvalidValueError(f"token_classes is {classes!r}, expected 2 or more")
    return classes


def _tensor(value: Any) -> Any:
    return (
        value
        if isinstance(value, Tensor) or not hasattr(value, "__array__")
        else torch.as_tensor(value)
    )


def as_mask(mask: Any) -> Tensor | None:
    """Return which tokens count, bool `(batch, tokens)`; None when all do."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    if mask.ndim != 2:
        # A ready-made attention pattern says who sees whom, not which tokens are padding.
        return None
    mask = mask.bool()
    return None if bool(mask.all()) else mask


def _check_lengths(batch: Batch) -> None:
    size = batch.size()
    for name in ("targets", "labels", "mask"):
        value = getattr(batch, name)
        if value is not None and (not value.ndim or len(value) != size):
            raise ShapeError(
                f"{name} of shape {tuple(value.shape)} for a batch of {size}: "
                "expected one entry a sample"
            )
