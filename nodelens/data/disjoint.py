"""Calibration and evaluation data kept apart: splitting documents, and telling when rows meet."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, SharedDataWarning, TooFewRowsError

__all__ = ["Fingerprint", "Meeting", "calibration_and_evaluation"]

D = TypeVar("D")


def calibration_and_evaluation(
    documents: Iterable[D], share: float = 0.5, seed: int = 0
) -> tuple[list[D], list[D]]:
    """Return the documents in two parts without a text in common, each in the order given.

    Of all different texts about `share`, drawn by `seed`, are for calibration, at least one for
    each part; equal texts go together. A document is a string or has a `text`.

    >>> calibration_and_evaluation(["a", "b", "c", "a"], share=0.4)
    (['c'], ['a', 'b', 'a'])

    Raises InvalidValueError for a share outside (0, 1), TooFewRowsError below two texts.
    """
    if not 0 < share < 1:
        raise InvalidValueError(f"share is {share!r}, expected between 0 and 1")
    given = list(documents)
    texts = list(dict.fromkeys(text_of(document) for document in given))
    if len(texts) < 2:
        raise TooFewRowsError(f"{len(texts)} different documents, expected at least 2 to split")
    count = min(max(round(share * len(texts)), 1), len(texts) - 1)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    chosen = {texts[number] for number in order[:count].tolist()}
    return (
        [document for document in given if text_of(document) in chosen],
        [document for document in given if text_of(document) not in chosen],
    )


def text_of(document: Any) -> str:
    """Return the text of a document, or the string itself."""
    text = document if isinstance(document, str) else getattr(document, "text", None)
    if not isinstance(text, str):
        raise InvalidValueError(f"a {type(document).__name__} is no document, expected text")
    return text


@dataclass(frozen=True)
class Fingerprint:
    """Digests of rows of data: of texts, of images, of blocks of tokens, one each."""

    rows: frozenset[bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, data: Any) -> Fingerprint:
        """Return the fingerprint of documents, one batch or a stream of batches.

        A row is a document, or one entry of a batch's first input (its `input_ids`). Targets and
        masks do not count. A tuple is one batch, a list or any other iterable a stream, which is
        used up where it can be gone through once only.
        """
        if isinstance(data, cls):
            return data
        # A shuffled DataLoader draws from torch's global generator.
        with torch.random.fork_rng(devices=[]):
            return cls(frozenset(_digests(data, batch=False)))

    def shared(self, other: Fingerprint) -> int:
        """Return how many different rows are in both."""
        return len(self.rows & other.rows)


class Meeting:
    """Watches a stream for rows that are also in the calibration data, None for any."""

    def __init__(self, calibration: Fingerprint | None) -> None:
        self.calibration = calibration
        self.seen: set[bytes] = set()

    def see(self, batch: Any) -> None:
        """Take note of the rows of one batch, or of documents."""
        if self.calibration is not None:
            self.seen.update(_digests(batch, batch=True))

    def warn(self) -> None:
        """Warn with SharedDataWarning when rows were in both."""
        shared = self.seen & self.calibration.rows if self.calibration is not None else ()
        if shared:
            warnings.warn(
                f"{len(shared)} of {len(self.seen)} different rows to evaluate on were used to "
                "calibrate: the result says less of new data; see calibration_and_evaluation",
                SharedDataWarning,
                stacklevel=4,
            )


def _digests(data: Any, *, batch: bool) -> Iterator[bytes]:
    """Digests of one batch, or of a stream of batches or documents."""
    if _is_document(data):
        yield hashlib.sha256(text_of(data).encode()).digest()
    elif isinstance(data, Mapping):
        yield from _digests(data.get("input_ids", next(iter(data.values()), ())), batch=True)
    elif isinstance(data, Tensor) or hasattr(data, "__array__"):
        yield from map(_digest, torch.as_tensor(data).detach().cpu())
    elif isinstance(data, Iterable):
        # Of a batch (inputs, targets) the first counts; texts are rows, each by itself.
        for number, part in enumerate(data):
            if (batch or isinstance(data, tuple)) and number and not _is_document(part):
                break
            yield from _digests(part, batch=True)
    else:
        raise InvalidValueError(f"a {type(data).__name__} has no rows to take a fingerprint of")


def _is_document(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "text")


def _digest(row: Tensor) -> bytes:
    plain = row.contiguous()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    about = f"{tuple(plain.shape)} {plain.dtype} ".encode()
    return hashlib.sha256(about + plain.numpy().tobytes()).digest()
