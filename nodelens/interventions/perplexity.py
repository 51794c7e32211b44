"""Perplexity of a language model by one protocol, which is printed with the number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.data.disjoint import Fingerprint, Meeting, text_of
from nodelens.data.text import Document, token_ids
from nodelens.errors import InvalidValueError, ShapeError, TooFewRowsError
from nodelens.interventions.channels import (
    Channels,
    Condition,
    Site,
    Value,
    as_condition,
    parts_of,
)
from nodelens.interventions.evaluation import exponential
from nodelens.interventions.silence import numbered, silenced_outputs
from nodelens.model.logits import logits_of
from nodelens.model.loss import IGNORED, predict
from nodelens.model.wrapper import ModelWrapper, wrap

__all__ = ["Perplexity", "perplexity"]

_BLOCK = 512


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and all that it depends on; `str()` of it is one line that says so.

    `value` is exp(`loss`), `loss` the mean over all predicted tokens in nats. `standard_error` is
    that of `value` over blocks, None for a single one. `documents` is None where blocks were given.
    `block_losses` are the mean losses of the blocks, in order, to draw blocks anew.
    """

    value: float
    standard_error: float | None
    loss: float
    tokens: int
    blocks: int
    block_size: int
    stride: int
    split: str
    dtype: str
    max_tokens: int | None = None
    documents: int | None = None
    silenced: int = 0
    block_losses: tuple[float, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        spread = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return (
            f"perplexity {self.value:.4g}{spread} (standard error over {self.blocks} blocks): "
            f"{self.protocol}"
        )

    @property
    def protocol(self) -> str:
        """Return what the number was taken on: split, blocks, stride, tokens, dtype."""
        of = "given as blocks" if self.documents is None else f"of {self.documents} documents"
        most = "" if self.max_tokens is None else f", of at most {self.max_tokens} tokens"
        silent = f"{self.silenced} channels silenced" if self.silenced else "nothing silenced"
        return (
            f"split {self.split!r} {of}{most}; blocks of {self.block_size} tokens, "
            f"stride {self.stride}; {self.tokens} tokens predicted; {self.dtype}; {silent}"
        )


@dataclass(frozen=True)
class _Blocks:
    """Blocks of tokens, and what is predicted at every place, each `(blocks, block_size)`."""

    ids: Tensor
    targets: Tensor
    stride: int
    mask: Tensor | None = None
    documents: int | None = None


def perplexity(
    model: Any,
    documents_or_blocks: Any,
    *,
    tokenizer: Any = None,
    block_size: int | None = None,
    stride: int | None = None,
    split: str = "not named",
    max_tokens: int | None = None,
    batch_size: int = 4,
    channels: Channels | Condition | None = None,
    heads: Channels | None = None,
    value: Value = "zero",
    site: Site = "output",
    seed: int = 0,
    calibration: Any = None,
) -> Perplexity:
    """Return the perplexity of a language model over documents or blocks of tokens.

    Documents (texts, or with a `text`) stand one after another, each closed by the end-of-text
    token, cut at `max_tokens`, and are read in windows of `block_size` (512) every `stride` tokens
    (`block_size`); a rest shorter than a window is left out. A window predicts all its tokens but
    the first; with a smaller stride a later one only counts its `stride` last tokens, those that
    are new. Every predicted token counts alike. `tokenizer` may come with the model. Blocks, a
    tensor `(blocks, block_size)` or a mapping with `input_ids`, are taken as they are.

    `split` is what the data is called in the protocol. `channels` and what follows silence as in
    `evaluate`; `calibration`, documents or blocks or their `Fingerprint`, gives a
    SharedDataWarning when a text or a block is in both. The standard error is that of a ratio
    over blocks, carried to the perplexity to first order; neighbouring blocks of one article are
    more alike than it assumes.
    """
    wrapper = wrap(model)
    condition = as_condition(channels, heads=heads, value=value, site=site, seed=seed)
    meeting = Meeting(None if calibration is None else Fingerprint.of(calibration))
    blocks = _given(documents_or_blocks, block_size, stride, max_tokens)
    if blocks is None:
        tokenizer = tokenizer if tokenizer is not None else wrapper.tokenizer
        documents, ids = _read(_documents(documents_or_blocks), tokenizer, max_tokens)
        meeting.see(documents)
        blocks = _windows(ids, len(documents), block_size or _BLOCK, stride)
    if batch_size < 1:
        raise InvalidValueError(f"batch_size is {batch_size}, expected at least 1")
    meeting.see(blocks.ids)
    meeting.warn()
    losses, terms = _measured(wrapper, blocks, condition, batch_size)
    loss, error = _mean(losses, terms)
    found = exponential(loss)
    return Perplexity(
        found,
        None if error is None else found * error,
        loss,
        int(terms.sum()),
        len(losses),
        int(blocks.ids.shape[1]),
        blocks.stride,
        split,
        _dtype(wrapper),
        max_tokens,
        blocks.documents,
        sum(len(part.indices) for part in parts_of(wrapper, condition)),
        tuple((losses / terms).tolist()),
    )


def _given(data: Any, size: int | None, stride: int | None, most: int | None) -> _Blocks | None:
    """The blocks, where blocks are given; None for documents."""
    mask = data.get("attention_mask") if isinstance(data, Mapping) else None
    ids = data.get("input_ids") if isinstance(data, Mapping) else data
    if not isinstance(ids, Tensor):
        if isinstance(data, Mapping):
            raise InvalidValueError(f"a mapping of {', '.join(data)} has no tensor of input_ids")
        return None
    if ids.ndim == 1 and mask is None and not ids.is_floating_point():
        return _windows(ids[:most], None, size or _BLOCK, stride)
    if ids.ndim != 2 or ids.is_floating_point() or ids.shape[1] < 2:
        raise ShapeError(
            f"blocks of shape {tuple(ids.shape)} and {ids.dtype}, expected whole numbers of shape "
            "(blocks, block_size), two tokens a block or more"
        )
    width = int(ids.shape[1])
    if size not in (None, width) or stride not in (None, width) or most is not None:
        raise InvalidValueError(
            f"blocks of {width} tokens are given: block_size, stride and max_tokens are for "
            "documents, leave them out"
        )
    mask = mask.bool() if isinstance(mask, Tensor) and not bool(mask.all()) else None
    targets = _next_tokens(ids)
    if mask is not None:
        following = torch.cat([mask[:, 1:], mask[:, :1]], 1)
        targets = targets.masked_fill(~(mask & following), IGNORED)
    return _Blocks(ids, targets, width, mask)


def _documents(given: Any) -> list[Document]:
    given = [given] if isinstance(given, (str, Document)) else given
    if not isinstance(given, Iterable):
        raise InvalidValueError(f"a {type(given).__name__} is neither documents nor blocks")
    return [Document(str(getattr(d, "title", n)), text_of(d)) for n, d in enumerate(given)]


def _read(
    documents: list[Document], tokenizer: Any, most: int | None
) -> tuple[list[Document], list[int]]:
    """The documents that are read, up to so many tokens, and these."""
    if tokenizer is None:
        raise InvalidValueError("documents need a tokenizer=, and the model has none")
    read: list[Document] = []
    ids: list[int] = []
    for document in documents:
        if most is not None and len(ids) >= most:
            break
        read.append(document)
        ids += token_ids([document], tokenizer)
    return read, ids[:most]


def _windows(
    tokens: list[int] | Tensor, documents: int | None, size: int, stride: int | None
) -> _Blocks:
    step = size if stride is None else stride
    if size < 2 or not 1 <= step <= size:
        raise InvalidValueError(
            f"block_size is {size} and stride {step}, expected at least 2, and from 1 to block_size"
        )
    ids = torch.as_tensor(tokens, dtype=torch.int64)
    if len(ids) < size:
        raise TooFewRowsError(f"the documents hold {len(ids)} tokens, expected one block of {size}")
    windows = ids.unfold(0, size, step)
    targets = _next_tokens(windows)
    # The token at place t is predicted at t - 1; what an earlier window held is not new.
    targets[1:, : size - step - 1 if step < size else 0] = IGNORED
    return _Blocks(windows, targets, step, documents=documents)


def _next_tokens(ids: Tensor) -> Tensor:
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)


def _measured(
    wrapper: ModelWrapper, blocks: _Blocks, condition: Condition, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The summed loss and the number of predictions of every block that has any."""
    losses: list[float] = []
    terms: list[int] = []
    for number, (given, targets) in enumerate(_batches(blocks, batch_size)):
        with numbered(number):
            batch = wrapper.prepare_batch(given)
            logits = logits_of(silenced_outputs(wrapper, batch, condition))
            # A block at a time: logits of a large vocabulary are what takes memory.
            for row, wanted in zip(logits, targets.to(logits.device), strict=True):
                own = Batch(targets=wanted[None])
                found = predict(row[None], own, wrapper.module, None)
                losses.append(float(found.loss))
                terms.append(found.terms)
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(terms)


def _batches(blocks: _Blocks, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    mask = torch.ones_like(blocks.ids) if blocks.mask is None else blocks.mask.long()
    for start in range(0, len(blocks.ids), size):
        some = slice(start, start + size)
        yield (
            {"input_ids": blocks.ids[some], "attention_mask": mask[some]},
            blocks.targets[some],
        )


def _mean(losses: Tensor, terms: Tensor) -> tuple[float, float | None]:
    """The mean loss of a prediction, and its standard error as a ratio over blocks."""
    total, blocks = int(terms.sum()), len(losses)
    if not total:
        raise InvalidValueError("nothing was predicted, expected blocks with tokens to predict")
    mean = float(losses.sum()) / total
    if blocks < 2:
        return mean, None
    spread = float((losses - mean * terms).square().sum()) * blocks / (blocks - 1)
    return mean, spread**0.5 / total


def _dtype(wrapper: ModelWrapper) -> str:
    first = next((p for p in wrapper.module.parameters() if p.is_floating_point()), None)
    return "no parameters" if first is None else str(first.dtype).removeprefix("torch.")
