"""What many channels share, by taking channels away: entropies of Gaussians and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.oracles.capture import Array

EPS = 1e-4


def entropy(correlations: Array) -> float:
    """Return the entropy of a Gaussian above that of as many independent ones, in nats."""
    return 0.5 * float(np.linalg.slogdet(correlations)[1]) if len(correlations) else 0.0


def total(correlations: Array) -> float:
    """Return the sum of single entropies minus the joint one."""
    return -entropy(correlations)


def dual(correlations: Array) -> float:
    """Return the joint entropy minus the sum of what each has, given all others."""
    whole = entropy(correlations)
    return whole - sum(whole - entropy(without(correlations, i)) for i in range(len(correlations)))


def o_information(correlations: Array) -> float:
    return total(correlations) - dual(correlations)


def without(correlations: Array, channel: int) -> Array:
    return np.delete(np.delete(correlations, channel, 0), channel, 1)


def shrunk(rows: Array) -> Array:
    """Return the correlations of the channels, those of different ones a little smaller."""
    rho = np.atleast_2d(np.corrcoef(rows, rowvar=False)) * (1 - EPS)
    np.fill_diagonal(rho, 1)
    return rho


def gains(rows: Array, measure: Callable[[Array], float]) -> Array:
    """Return what `measure` loses when a channel is taken away, for every channel."""
    rho = shrunk(rows)
    return np.array([measure(rho) - measure(without(rho, i)) for i in range(len(rho))])
