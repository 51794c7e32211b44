"""Supernodes of a feed-forward block: the few units that carry its loss, and who writes as they do.

The down projection's weight is `(hidden, units)`: column j is what unit j writes into the stream.
(SCAR: "Supernodes and Halos", arXiv 2604.23475.)
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.metrics.formulas.basics import gaussian_information, ratio
from nodelens.metrics.formulas.normalise import rank

__all__ = [
    "connectivity",
    "core_dimensions",
    "effective_dimension",
    "information_with_core",
    "protection",
    "read_connectivity",
    "redundancy_to_core",
    "scar_conn",
    "scar_prot",
    "top_share",
    "write_pattern",
]

_STEEPNESS = 8


def top_share(scores: Tensor, share: float) -> Tensor:
    """Return the units of the `share` with the highest scores, ascending; at least one.

    Of equal scores, those of lower number come first. Raises InvalidValueError for a share that is
    not above 0 and at most 1.
    """
    count = max(1, _count(len(scores), share))
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values


def write_pattern(down_weight: Tensor, core: Tensor) -> Tensor:
    """Return how much of its absolute weight the core writes to each dimension, `(hidden,)`.

    Each unit of the core counts alike, whatever its scale: columns are divided by their L1 norms.
    The sum is 1, or 0 where the core writes nothing.
    """
    size = down_weight[:, _numbers(core, down_weight.shape[1])].to(torch.float64).abs()
    pattern = ratio(size, size.sum(0)).sum(1)
    return ratio(pattern, pattern.sum())


def core_dimensions(down_weight: Tensor, core: Tensor, share: float = 0.1) -> Tensor:
    """Return the dimensions of the stream that the core writes to most, ascending.

    They are the `share` of all with the largest `write_pattern`.
    """
    return top_share(write_pattern(down_weight, core), share)


def connectivity(down_weight: Tensor, core: Tensor, share: float = 0.1) -> Tensor:
    """Return how much of its absolute weight each unit writes where the core does, `(units,)`.

    sum over the core's top write dimensions of abs(W[d, j]), over the L1 norm of column j: between
    0 and 1, the same if a unit or the whole weight is scaled. `core` holds units' numbers, or is a
    mask `(units,)`. A unit that writes nothing has 0.
    """
    size = down_weight.to(torch.float64).abs()
    return ratio(size[core_dimensions(down_weight, core, share)].sum(0), size.sum(0))


def read_connectivity(
    up_weight: Tensor, down_weight: Tensor, core: Tensor, share: float = 0.1
) -> Tensor:
    """Return how much of its absolute weight each channel reads where a core writes, `(channels,)`.

    `up_weight` `(channels, hidden)` reads the stream behind the block whose `down_weight`
    `(hidden, units)` writes it. A channel that reads nothing has 0.
    """
    if up_weight.shape[1] != down_weight.shape[0]:
        raise ShapeError(
            f"the reading weight takes {up_weight.shape[1]} dimensions, expected "
            f"{down_weight.shape[0]} as the down projection writes"
        )
    size = up_weight.to(torch.float64).abs()
    return ratio(size[:, core_dimensions(down_weight, core, share)].sum(1), size.sum(1))


def redundancy_to_core(comoment: Tensor, core: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the mean information of each unit's signal with those of the core, `(units,)`, nats.

    `comoment` `(units, units)` are sums of products of deviations of the token signals u * g, or
    their covariance. -1/2 log(1 - rho^2), with nothing added to a variance, so the scale of the
    signals is of no account. A unit of the core is not compared with itself; a constant unit
    shares nothing.
    """
    members = _numbers(core, len(comoment))
    return information_with_core(comoment[members], comoment.diagonal(), members, eps)


def information_with_core(
    comoments: Tensor, squares: Tensor, core: Tensor, eps: float = 1e-6
) -> Tensor:
    """Return what `redundancy_to_core` does, from the core's rows `(core, units)` alone.

    `squares` `(units,)` is the diagonal of the whole, `core` the numbers of the rows' units.
    """
    spread = squares.to(torch.float64).clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(spread), spread)
    rho = comoments.to(torch.float64) * scale[core][:, None] * scale
    shared = gaussian_information(rho.square(), eps)
    own = torch.arange(len(squares), device=squares.device) == core[:, None]
    others = (~own).sum(0).to(torch.float64)
    return ratio(shared.masked_fill(own, 0).sum(0), others)


def protection(ranks: Tensor, floor: float = 0.2) -> Tensor:
    """Return floor + (1 - floor) (1 - rank^8), elementwise, in [floor, 1].

    `ranks` run from 0 to 1 within the layer, 1 for the unit that repeats the core most: only the
    most redundant lose protection.
    """
    if not 0 <= floor <= 1:
        raise InvalidValueError(f"floor is {floor}, expected a number from 0 to 1")
    return floor + (1 - floor) * (1 - ranks**_STEEPNESS)


def scar_prot(
    loss_proxy: Tensor, redundancy: Tensor, floor: float = 0.2, core: Tensor | None = None
) -> Tensor:
    """Return SCAR-Prot, the loss proxy times protection by rank of `redundancy`, `(units,)`.

    With `core`, its units are protected wholly and the others ranked among themselves.
    """
    _check_alike(loss_proxy, redundancy=redundancy)
    return loss_proxy * _protected(redundancy, floor, core)


def scar_conn(
    loss_proxy: Tensor,
    connectivity: Tensor,
    redundancy: Tensor,
    floor: float = 0.2,
    core: Tensor | None = None,
) -> Tensor:
    """Return SCAR-Conn, LP (1 - conn + conn protect), `(units,)`.

    A unit is discounted for repeating the core in so far as it writes where the core does. `core`
    is as in `scar_prot`.
    """
    _check_alike(loss_proxy, connectivity=connectivity, redundancy=redundancy)
    protect = _protected(redundancy, floor, core)
    return loss_proxy * (1 - connectivity + connectivity * protect)


def _protected(redundancy: Tensor, floor: float, core: Tensor | None) -> Tensor:
    if core is None:
        return protection(rank(redundancy), floor)
    outside = torch.ones(len(redundancy), dtype=torch.bool, device=redundancy.device)
    outside[_numbers(core, len(redundancy))] = False
    ranks = torch.zeros(len(redundancy), dtype=torch.float64, device=redundancy.device)
    ranks[outside] = rank(redundancy[outside].to(torch.float64))
    return protection(ranks, floor)


def effective_dimension(pattern: Tensor) -> float:
    """Return over how many dimensions a non-negative pattern is spread, 1 to `len(pattern)`.

    The exponential of the entropy of its shares; 0 for a pattern of zeros.
    """
    total = pattern.sum()
    if total == 0:
        return 0.0
    share = pattern / total
    return math.exp(float(torch.special.entr(share).sum()))


def _count(units: int, share: Any) -> int:
    if not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise InvalidValueError(f"share is {share!r}, expected a number above 0 and at most 1")
    return round(units * float(share))


def _numbers(core: Tensor, units: int) -> Tensor:
    """The numbers of the core's units, whether `core` is a mask or numbers."""
    numbers = torch.as_tensor(core)
    if numbers.dtype == torch.bool:
        if numbers.shape != (units,):
            raise ShapeError(
                f"the core's mask has shape {tuple(numbers.shape)}, expected ({units},)"
            )
        numbers = numbers.nonzero().flatten()
    if not len(numbers):
        raise InvalidValueError("the core has no unit, expected at least one")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= units:
        raise InvalidValueError(
            f"the core has unit {low if low < 0 else high}, expected numbers from 0 to {units - 1}"
        )
    return numbers.to(torch.int64)


def _check_alike(loss_proxy: Tensor, **others: Tensor) -> None:
    for name, values in others.items():
        if values.shape != loss_proxy.shape:
            raise ShapeError(
                f"{name} has shape {tuple(values.shape)}, expected {tuple(loss_proxy.shape)} "
                "as the loss proxy"
            )
