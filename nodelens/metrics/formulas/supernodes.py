"""Supernodes of a feed-forward block, what is connected to them, and the scores of SCAR.

Units are the channels that the down projection takes in; the core are those with the highest loss
proxy. ("Supernodes and Halos", arXiv 2604.23475.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nodelens.metrics.formulas.basics import gaussian_information, ratio
from nodelens.metrics.formulas.normalise import rank

__all__ = [
    "connection",
    "halo",
    "information_with_core",
    "protection",
    "scar_connectivity",
    "scar_protection",
    "supernodes",
    "write_dimensions",
]


def supernodes(scores: Tensor, fraction: float = 0.01) -> Tensor:
    """Return the numbers of the `fraction` of units with the highest scores, at least one."""
    count = max(1, math.ceil(fraction * len(scores) - 1e-9))
    return torch.argsort(scores, descending=True, stable=True)[:count]


def write_dimensions(down: Tensor, core: Tensor, fraction: float = 0.1) -> Tensor:
    """Return the dimensions that the core writes most to, at least one of them.

    `down` is `(dimensions, units)`; the weight is sum_{j in core} abs W[d, j].
    """
    return supernodes(down.double()[:, core].abs().sum(1), fraction)


def connection(weights: Tensor, dimensions: Tensor) -> Tensor:
    """Return the part of each unit's weight that lies in some dimensions, `(units,)`, 0 to 1.

    sum_{d in dimensions} abs W[d, j] / sum_d abs W[d, j], of `weights` `(dimensions, units)`.
    """
    size = weights.double().abs()
    return ratio(size[dimensions].sum(0), size.sum(0))


def halo(connected: Tensor, core: Tensor, fraction: float = 0.1) -> Tensor:
    """Return the numbers of the `fraction` of units outside the core that are connected most."""
    outside = torch.ones(len(connected), dtype=torch.bool)
    outside[core] = False
    others = outside.nonzero().flatten()
    return others[supernodes(connected[others], fraction)]


def information_with_core(comoments: Tensor, squares: Tensor, core: Tensor) -> Tensor:
    """Return the mean information of each unit's signal with those of the core, `(units,)`, nats.

    -1/2 log(1 - rho^2), rho the correlation of q = u g: `comoments` `(core, units)` are sums of
    products of deviations and `squares` `(units,)` their diagonal. No scale of q matters, however
    small; a unit whose signal is constant has 0.
    """
    spread = squares.double().clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(spread), spread)
    rho = comoments.double() * scale[core][:, None] * scale
    return gaussian_information(rho.square()).mean(0)


def protection(redundancy: Tensor, core: Tensor, floor: float = 0.2) -> Tensor:
    """Return how far each unit is protected, floor to 1: floor + (1 - floor)(1 - rank^8).

    The rank is that of its redundancy with the core among the units outside it; the core has 1.
    """
    outside = torch.ones(len(redundancy), dtype=torch.bool)
    outside[core] = False
    ranks = torch.zeros(len(redundancy), dtype=torch.float64)
    ranks[outside] = rank(redundancy[outside].double())
    return floor + (1 - floor) * (1 - ranks**8)


def scar_protection(proxy: Tensor, protect: Tensor) -> Tensor:
    """Return SCAR-Prot, LP protect, `(units,)`, in the unit of the loss proxy."""
    return proxy * protect


def scar_connectivity(proxy: Tensor, protect: Tensor, connected: Tensor) -> Tensor:
    """Return SCAR-Conn, LP (1 - conn + conn protect), `(units,)`, in the proxy's unit."""
    return proxy * (1 - connected + connected * protect)
