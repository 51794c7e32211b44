"""Sharing a stream out: every batch belongs to exactly one share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from nodelens.errors import InvalidValueError

__all__ = ["Share"]

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One of `count` shares of a stream: batches `index`, `index + count`, and so on.

    Nothing is padded or repeated; shares may differ by a batch, and the last ones may be empty.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise InvalidValueError(
                f"share {self} does not exist, expected 1/{self.count} to {self.count}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share written as `i/n`, counted from 1.

        >>> Share.parse("2/3")
        Share(index=1, count=3)
        """
        found = re.fullmatch(r"(\d+)/([1-9]\d*)", text.strip())
        if found is None:
            raise InvalidValueError(f"{text!r} is not a share, expected i/n such as 1/3")
        return cls(int(found[1]) - 1, int(found[2]))

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def of(self, batches: Iterable[T]) -> Iterable[T]:
        """Return the batches of this share, in order; sized where the stream is.

        >>> list(Share.parse("2/3").of("abcde"))
        ['b', 'e']
        """
        return batches if self.count == 1 else _Part(self, batches)


@dataclass(frozen=True)
class _Part(Generic[T]):
    share: Share
    batches: Iterable[T]

    def __iter__(self) -> Iterator[T]:
        return islice(self.batches, self.share.index, None, self.share.count)

    def __len__(self) -> int:
        return len(range(self.share.index, len(self.batches), self.share.count))  # type: ignore[arg-type]
